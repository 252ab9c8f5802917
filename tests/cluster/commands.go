package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// An answer to a command: either an error, or what was asked for.
type answer struct {
	Error string `json:"error,omitempty"`
	// Of pod-pid: process identifiers by container, as seen where the cluster was started.
	Pids map[string]int `json:"pids,omitempty"`
	// Of logs: files by container.
	Logs map[string]string `json:"logs,omitempty"`
	// Of component-log: its file.
	Log string `json:"log,omitempty"`
}

// answer carries out one command line.
func (c *cluster) answer(ctx context.Context, line string) answer {
	words := strings.Fields(line)
	if len(words) != 2 {
		return answer{Error: fmt.Sprintf("%q: a command and one argument are wanted, or quit", line)}
	}
	var result answer
	var err error
	switch command, argument := words[0], words[1]; command {
	case "stop", "start", "restart":
		err = c.control(ctx, command, argument)
	case "component-log":
		var found *component
		if found, err = c.component(argument); err == nil {
			result.Log = found.log
		}
	case "kill-pod":
		err = c.eachContainer(argument, func(container *container) error {
			if container.process == nil {
				return nil
			}
			return container.process.Kill()
		})
	case "pod-pid":
		result.Pids = map[string]int{}
		err = c.eachContainer(argument, func(container *container) error {
			if container.process != nil {
				result.Pids[container.spec.Name] = container.process.Pid
			}
			return nil
		})
	case "logs":
		result.Logs = map[string]string{}
		err = c.eachContainer(argument, func(container *container) error {
			result.Logs[container.spec.Name] = container.log()
			return nil
		})
	default:
		err = fmt.Errorf("no command %q: there are stop, start, restart, component-log, kill-pod, pod-pid, logs, quit", command)
	}
	if err != nil {
		result.Error = err.Error()
	}
	return result
}

// control stops or starts a component of the control plane.
func (c *cluster) control(ctx context.Context, command, name string) error {
	found, err := c.component(name)
	if err != nil {
		return err
	}
	if command != "start" {
		if err := found.stop(); err != nil {
			return err
		}
	}
	if command != "stop" {
		return found.start(ctx)
	}
	return nil
}

func (c *cluster) component(name string) (*component, error) {
	var names []string
	for _, component := range c.components {
		if component.name == name {
			return component, nil
		}
		names = append(names, component.name)
	}
	return nil, fmt.Errorf("no component %q: there are %s", name, strings.Join(names, ", "))
}

// eachContainer does something with every container of a pod, under the pod's lock.
func (c *cluster) eachContainer(name string, do func(*container) error) error {
	pod, err := c.kubelet.find(name)
	if err != nil {
		return err
	}
	pod.mutex.Lock()
	defer pod.mutex.Unlock()
	for _, container := range pod.containers {
		err = errors.Join(err, do(container))
	}
	return err
}
