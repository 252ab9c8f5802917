package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"weir.internal/tests/cluster/container/spec"
)

// The wait before a container that ended is started again: doubled each time, forgotten after a run of stableRun. A real kubelet
// begins with 10 s and ends with 5 min.
const (
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 10 * time.Second
	stableRun    = 20 * time.Second
)

// The user of a container that must not be root and names none.
const nonRootUser = 65532

// A container of a pod: a real process when its image is in the table, else nothing that only counts as running.
type container struct {
	pod    *pod
	spec   *v1.Container
	init   bool
	status v1.ContainerStatus // guarded by the pod's mutex
	// The process while there is one, guarded by the pod's mutex.
	process *os.Process
	// When readiness begins to count; guarded by the pod's mutex.
	readyFrom time.Time
	// What the readiness probe says; guarded by the pod's mutex.
	probedReady bool
}

func newContainer(pod *pod, definition *v1.Container, init bool) *container {
	return &container{
		pod:  pod,
		spec: definition,
		init: init,
		status: v1.ContainerStatus{
			Name:    definition.Name,
			Image:   definition.Image,
			ImageID: definition.Image,
			State:   v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}},
		},
	}
}

// program gives the program that plays the image; none for a container without a process.
func (c *container) program() (string, bool) {
	program, ok := c.pod.kubelet.images[imageName(c.spec.Image)]
	return program, ok
}

// restarts tells whether the container starts again after it ended.
func (c *container) restarts(exitCode int) bool {
	c.pod.mutex.Lock()
	defer c.pod.mutex.Unlock()
	return c.restartsLocked(int32(exitCode))
}

func (c *container) restartsLocked(exitCode int32) bool {
	policy := c.pod.newest.Spec.RestartPolicy
	if c.sidecar() {
		policy = v1.RestartPolicyAlways
	} else if c.init && policy == v1.RestartPolicyAlways {
		policy = v1.RestartPolicyOnFailure
	}
	return policy == v1.RestartPolicyAlways || policy == v1.RestartPolicyOnFailure && exitCode != 0
}

// sidecar tells whether this is an init container that stays.
func (c *container) sidecar() bool {
	return c.init && c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// run runs the container until it ends for good or the context ends; then its process gets SIGTERM, and SIGKILL when the pod's grace
// is over. The exit code of the last run.
func (c *container) run(ctx context.Context) int {
	backoff := firstBackoff
	for {
		began := time.Now()
		exitCode := c.runOnce(ctx)
		if ctx.Err() != nil || !c.restarts(exitCode) {
			return exitCode
		}
		if time.Since(began) > stableRun {
			backoff = firstBackoff
		}
		message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", backoff, c.spec.Name, c.pod.name())
		c.change(func(status *v1.ContainerStatus) {
			status.LastTerminationState = status.State
			status.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: message}}
		})
		c.pod.event(v1.EventTypeWarning, "BackOff", message)
		if !sleep(ctx, backoff) {
			// A container that ends while it waits is terminated as it was before.
			c.change(func(status *v1.ContainerStatus) { status.State = status.LastTerminationState })
			return exitCode
		}
		backoff = min(2*backoff, lastBackoff)
		c.change(func(status *v1.ContainerStatus) { status.RestartCount++ })
	}
}

// runOnce runs the container to its end and records it; the exit code.
func (c *container) runOnce(ctx context.Context) int {
	program, real := c.program()
	if !real {
		c.running(func() {})
		<-ctx.Done()
		c.ended(0, "Completed", "")
		return 0
	}
	command, err := c.start(program)
	if err != nil {
		c.pod.event(v1.EventTypeWarning, "Failed", fmt.Sprintf("container %s: %v", c.spec.Name, err))
		c.ended(128, "StartError", err.Error())
		return 128
	}
	c.running(func() { c.process = command.Process })
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	probes, stopProbes := context.WithCancel(context.Background())
	defer stopProbes()
	unhealthy := make(chan string, 1)
	c.startProbes(probes, unhealthy)
	message := ""
	select {
	case <-ended:
	case message = <-unhealthy:
		c.pod.event(v1.EventTypeNormal, "Killing", fmt.Sprintf("container %s failed its probe, will be restarted", c.spec.Name))
		c.stop(command, ended)
	case <-ctx.Done():
		c.preStop()
		c.stop(command, ended)
	}
	stopProbes()
	exitCode, signal := 0, 0
	switch status := command.ProcessState.Sys().(syscall.WaitStatus); {
	case status.Signaled():
		signal = int(status.Signal())
		exitCode = 128 + signal
	default:
		exitCode = status.ExitStatus()
	}
	reason := "Completed"
	if exitCode != 0 {
		reason = "Error"
	}
	c.ended(exitCode, reason, message)
	return exitCode
}

// stop sends SIGTERM, waits for the grace that the pod has left, and sends SIGKILL.
func (c *container) stop(command *exec.Cmd, ended <-chan error) {
	_ = command.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(c.pod.graceLeft())
	defer timer.Stop()
	select {
	case <-ended:
		return
	case <-timer.C:
	case <-c.pod.gone:
	}
	_ = command.Process.Kill()
	<-ended
}

// preStop waits as the container's preStop hook says.
func (c *container) preStop() {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PreStop == nil {
		return
	}
	if c.spec.Lifecycle.PreStop.Sleep == nil {
		c.pod.event(v1.EventTypeWarning, "FailedPreStopHook", "nodes of tests have preStop sleep only, neither exec nor httpGet")
		return
	}
	timer := time.NewTimer(min(seconds(c.spec.Lifecycle.PreStop.Sleep.Seconds), c.pod.graceLeft()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.pod.gone:
	}
}

// start starts the process.
func (c *container) start(program string) (*exec.Cmd, error) {
	object := c.pod.object()
	variables, err := c.pod.kubelet.environment(object, c.spec, c.pod.address())
	if err != nil {
		return nil, err
	}
	mounts, err := c.pod.volumes.mounts(object, c.spec)
	if err != nil {
		return nil, err
	}
	user, group, err := userOf(object, c.spec)
	if err != nil {
		return nil, err
	}
	name := imageName(c.spec.Image)
	specification := spec.Container{
		Root:             filepath.Join(c.pod.folder, "root-"+c.spec.Name),
		Program:          program,
		ImageName:        name,
		Command:          commandOf(c.spec, name, variables),
		Environment:      asList(variables),
		WorkingDirectory: c.spec.WorkingDir,
		Hostname:         object.Name,
		Network:          c.pod.attachment != nil && c.pod.attachment.namespace != nil,
		User:             user,
		Group:            group,
		Groups:           groupsOf(object, group),
		ReadOnly:         c.spec.SecurityContext != nil && isTrue(c.spec.SecurityContext.ReadOnlyRootFilesystem),
		Mounts:           mounts,
		Files: map[string]string{
			"etc/hosts":       fmt.Sprintf("127.0.0.1\tlocalhost\n%s\t%s\n", c.pod.address(), object.Name),
			"etc/resolv.conf": "", // no name service: nothing may be asked outside
			"etc/passwd":      fmt.Sprintf("root:x:0:0:root:/:/bin/sh\nuser:x:%d:%d::/:/bin/sh\n", user, group),
			"etc/group":       fmt.Sprintf("root:x:0:\nuser:x:%d:\n", group),
		},
	}
	if len(specification.Hostname) > 63 {
		specification.Hostname = specification.Hostname[:63]
	}
	text, err := json.Marshal(specification)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(specification.Root, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(c.pod.folder, c.spec.Name+".json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(c.pod.kubelet.runner, file)
	command.Stdout, command.Stderr = log, log
	if specification.Network {
		command.ExtraFiles = []*os.File{c.pod.attachment.namespace}
	}
	command.Env = []string{}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	return command, command.Start()
}

// log is the file that the container writes to, over all its runs.
func (c *container) log() string { return filepath.Join(c.pod.logs, c.spec.Name+".log") }

// startProbes starts the probes of one run. When the container must be restarted, it says so on unhealthy.
func (c *container) startProbes(ctx context.Context, unhealthy chan<- string) {
	fail := func(what, message string) {
		select {
		case unhealthy <- what + " probe failed: " + message:
		default:
		}
	}
	afterStart := func() {
		if c.spec.ReadinessProbe != nil {
			go watch(ctx, "Readiness", c.spec.ReadinessProbe, c, func(success bool, _ string) {
				c.change(func(*v1.ContainerStatus) {
					if ctx.Err() == nil {
						c.probedReady = success
					}
				})
			})
		}
		// Liveness ends when the pod does: a pod on its way out is not restarted.
		if c.spec.LivenessProbe != nil {
			go watch(c.pod.untilTerminating(ctx), "Liveness", c.spec.LivenessProbe, c, func(success bool, message string) {
				if !success {
					fail("liveness", message)
				}
			})
		}
	}
	if c.spec.StartupProbe == nil {
		afterStart()
		return
	}
	startup, stop := context.WithCancel(c.pod.untilTerminating(ctx))
	go watch(startup, "Startup", c.spec.StartupProbe, c, func(success bool, message string) {
		stop()
		if !success {
			fail("startup", message)
			return
		}
		started := true
		c.change(func(status *v1.ContainerStatus) {
			status.Started = &started
			c.probedReady = c.spec.ReadinessProbe == nil
		})
		afterStart()
	})
}

// running records that the container runs; more is done under the same lock.
func (c *container) running(more func()) {
	delay := c.pod.knobDuration(readyDelayKnob)
	c.change(func(status *v1.ContainerStatus) {
		more()
		_, real := c.program()
		started := c.spec.StartupProbe == nil || !real
		c.probedReady = started && (c.spec.ReadinessProbe == nil || !real)
		c.readyFrom = time.Now().Add(delay)
		status.Started = &started
		status.ContainerID = fmt.Sprintf("weir-tests://%s/%s/%d", c.pod.uid, c.spec.Name, status.RestartCount)
		status.State = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.Now()}}
	})
	c.pod.wakeAfter(delay)
}

// ended records that the container ended.
func (c *container) ended(exitCode int, reason, message string) {
	c.change(func(status *v1.ContainerStatus) {
		began := metav1.Now()
		if status.State.Running != nil {
			began = status.State.Running.StartedAt
		}
		started := false
		c.process, c.probedReady, status.Started = nil, false, &started
		status.State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			ExitCode:    int32(exitCode),
			Reason:      reason,
			Message:     message,
			StartedAt:   began,
			FinishedAt:  metav1.Now(),
			ContainerID: status.ContainerID,
		}}
	})
}

// change changes the status and has it posted.
func (c *container) change(how func(*v1.ContainerStatus)) {
	c.pod.mutex.Lock()
	how(&c.status)
	c.pod.mutex.Unlock()
	c.pod.wake()
}

// userOf gives the user and group that the container runs as; as in images that say nothing, that is root.
func userOf(pod *v1.Pod, container *v1.Container) (user, group int, err error) {
	var nonRoot bool
	var asUser, asGroup *int64
	if context := pod.Spec.SecurityContext; context != nil {
		nonRoot, asUser, asGroup = isTrue(context.RunAsNonRoot), context.RunAsUser, context.RunAsGroup
	}
	if context := container.SecurityContext; context != nil {
		if context.RunAsNonRoot != nil {
			nonRoot = *context.RunAsNonRoot
		}
		if context.RunAsUser != nil {
			asUser = context.RunAsUser
		}
		if context.RunAsGroup != nil {
			asGroup = context.RunAsGroup
		}
	}
	if nonRoot && asUser == nil {
		user, group = nonRootUser, nonRootUser
	}
	if asUser != nil {
		user = int(*asUser)
	}
	if asGroup != nil {
		group = int(*asGroup)
	}
	if nonRoot && user == 0 {
		return 0, 0, errors.New("runAsNonRoot, and the user is root")
	}
	return user, group, nil
}

func groupsOf(pod *v1.Pod, group int) []int {
	groups := []int{group}
	if context := pod.Spec.SecurityContext; context != nil {
		if context.FSGroup != nil {
			groups = append(groups, int(*context.FSGroup))
		}
		for _, more := range context.SupplementalGroups {
			groups = append(groups, int(more))
		}
	}
	return groups
}
