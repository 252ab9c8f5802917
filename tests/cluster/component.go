package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// How long a component may take to end by itself; what it leaves is thrown away.
const stopPatience = time.Second

// How long a component may take until it is ready.
const startPatience = 60 * time.Second

// A component is a process of the control plane.
type component struct {
	name      string
	program   string
	arguments []string
	log       string
	ready     func(context.Context) error

	command *exec.Cmd
	ended   chan struct{}
	// How it ended, once ended is closed.
	failure error
}

// start starts the process and waits until it is ready.
func (c *component) start(ctx context.Context) error {
	if c.running() {
		return fmt.Errorf("%s runs already", c.name)
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.command = exec.Command(c.program, append([]string{c.name}, c.arguments...)...)
	c.command.Stdout, c.command.Stderr = log, log
	c.command.Dir = filepath.Dir(c.log)
	c.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := c.command.Start(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	command, ended := c.command, make(chan struct{})
	c.ended = ended
	go func() {
		c.failure = command.Wait()
		close(ended)
	}()
	return c.waitReady(ctx)
}

func (c *component) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, 5*time.Second)
		err := c.ready(attempt)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("%s ended (%v); its log ends with:\n%s", c.name, c.failure, tail(c.log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log ends with:\n%s", c.name, err, tail(c.log))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *component) running() bool {
	if c.command == nil {
		return false
	}
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// stop ends the process and waits for its end.
func (c *component) stop() error {
	if !c.running() {
		return fmt.Errorf("%s does not run", c.name)
	}
	err := c.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
		return nil
	case <-time.After(stopPatience):
	}
	err = errors.Join(err, c.command.Process.Kill())
	<-c.ended
	return err
}

// kill ends the process at once.
func (c *component) kill() {
	if c.running() {
		_ = c.command.Process.Kill()
		<-c.ended
	}
}

// tail gives the last lines of a log.
func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(len(lines)-30, 0):], []byte("\n")))
}
