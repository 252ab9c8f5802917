package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Annotations of pods that tests set.
const (
	// "false": the pod is not ready, whatever its probes say. May change while it runs.
	readyKnob = "test.weir/ready"
	// A duration: how long after the start of a container it counts as not ready, whatever its probe says.
	readyDelayKnob = "test.weir/ready-delay"
	// A duration: how long the pod waits before its containers start.
	startDelayKnob = "test.weir/start-delay"
)

// A pod of this kubelet, from the moment that it is bound until its object is gone.
type pod struct {
	kubelet     *kubelet
	uid         types.UID
	folder      string
	logs        string
	volumes     *volumes
	nodeAddress string

	// Ends when the object is deleted: containers are to end.
	terminating context.Context
	terminate   context.CancelFunc
	// Closed when the object is gone: nothing may run any more.
	gone     chan struct{}
	goneOnce sync.Once
	changed  chan struct{}

	mutex       sync.Mutex
	newest      *v1.Pod
	containers  []*container
	attachment  *attachment
	hostAddress string
	started     metav1.Time
	initialized bool
	deadline    time.Time
	trouble     string
	transitions map[v1.PodConditionType]v1.PodCondition
}

// newPod is called under the kubelet's lock.
func newPod(k *kubelet, object *v1.Pod) *pod {
	folder := filepath.Join(k.folder, "pods", string(object.UID))
	made := &pod{
		kubelet: k,
		uid:     object.UID,
		folder:  folder,
		logs:    filepath.Join(k.folder, "logs", object.Namespace+"_"+object.Name),
		volumes: &volumes{kubelet: k, folder: filepath.Join(folder, "volumes"), tokens: map[string]token{}},
		gone:    make(chan struct{}),
		changed: make(chan struct{}, 1),
		newest:  object,
		started: metav1.Now(),

		nodeAddress: k.nodes[object.Spec.NodeName],
	}
	made.terminating, made.terminate = context.WithCancel(context.Background())
	for i := range object.Spec.InitContainers {
		made.containers = append(made.containers, newContainer(made, &object.Spec.InitContainers[i], true))
	}
	for i := range object.Spec.Containers {
		made.containers = append(made.containers, newContainer(made, &object.Spec.Containers[i], false))
	}
	return made
}

// see takes over a newer object.
func (p *pod) see(object *v1.Pod) {
	p.mutex.Lock()
	p.newest = object
	if object.DeletionTimestamp != nil {
		grace := int64(30)
		if object.DeletionGracePeriodSeconds != nil {
			grace = *object.DeletionGracePeriodSeconds
		}
		// A later deletion may shorten the time, never lengthen it.
		deadline := time.Now().Add(seconds(grace))
		if p.deadline.IsZero() || deadline.Before(p.deadline) {
			p.deadline = deadline
		}
	}
	p.mutex.Unlock()
	if object.DeletionTimestamp != nil {
		p.terminate()
	}
	p.wake()
}

// vanish says that the object is gone from the API.
func (p *pod) vanish() {
	p.terminate()
	p.goneOnce.Do(func() { close(p.gone) })
}

// run lives the pod's life to its end.
func (p *pod) run() {
	status := make(chan struct{})
	go func() {
		p.postStatus()
		close(status)
	}()
	p.live()
	p.wake()
	// A pod whose containers all ended stays until it is deleted.
	<-p.terminating.Done()
	p.deleteObject()
	p.vanish()
	<-status
	if p.attachment != nil {
		p.kubelet.network.detach(p.attachment)
	}
	_ = os.RemoveAll(p.folder)
}

// live sets the pod up and runs its containers until all have ended.
func (p *pod) live() {
	object := p.object()
	if !sleep(p.terminating, p.knobDuration(startDelayKnob)) {
		return
	}
	if !p.retry(p.attach) || !p.retry(p.prepare) {
		return
	}
	refreshed, stopRefresh := context.WithCancel(context.Background())
	defer stopRefresh()
	if len(object.Spec.Volumes) > 0 && p.processes() {
		go p.refreshVolumes(refreshed)
	}
	var running sync.WaitGroup
	defer running.Wait()
	for _, container := range p.containers {
		switch {
		case container.sidecar():
			running.Go(func() { container.run(p.terminating) })
			if !p.waitFor(func() bool { return container.status.Started != nil && *container.status.Started }) {
				return
			}
		case container.init:
			if container.run(p.terminating) != 0 || p.terminating.Err() != nil {
				return
			}
		}
	}
	p.mutex.Lock()
	p.initialized = true
	p.mutex.Unlock()
	p.wake()
	for _, container := range p.containers {
		if !container.init {
			running.Go(func() { container.run(p.terminating) })
		}
	}
}

// attach gives the pod its address.
func (p *pod) attach() error {
	object := p.object()
	if object.Spec.HostNetwork {
		p.mutex.Lock()
		p.hostAddress = p.nodeAddress
		p.mutex.Unlock()
		return nil
	}
	attached, err := p.kubelet.network.attach(p.processes())
	if err != nil {
		return err
	}
	p.mutex.Lock()
	p.attachment = attached
	p.mutex.Unlock()
	p.wake()
	return nil
}

// prepare makes the pod's folders and volumes.
func (p *pod) prepare() error {
	if !p.processes() {
		return nil
	}
	for _, folder := range []string{p.volumes.folder, p.logs} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	return p.volumes.write(p.terminating, p.object(), p.address())
}

// retry repeats until it succeeds, and says in an event what is in the way; false when the pod is to end.
func (p *pod) retry(what func() error) bool {
	for {
		err := what()
		text := ""
		if err != nil {
			text = err.Error()
		}
		p.mutex.Lock()
		news := text != p.trouble
		p.trouble = text
		p.mutex.Unlock()
		if err == nil {
			return p.terminating.Err() == nil
		}
		if news {
			p.event(v1.EventTypeWarning, "FailedMount", text)
			p.wake()
		}
		if !sleep(p.terminating, volumeRefresh) {
			return false
		}
	}
}

func (p *pod) refreshVolumes(ctx context.Context) {
	every := time.NewTicker(volumeRefresh)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		// What cannot be read now stays as it was, as on a real node.
		if err := p.volumes.write(ctx, p.object(), p.address()); err != nil && ctx.Err() == nil {
			p.event(v1.EventTypeWarning, "FailedMount", err.Error())
		}
	}
}

// waitFor waits for a condition of the status, false when the pod is to end first.
func (p *pod) waitFor(condition func() bool) bool {
	for {
		p.mutex.Lock()
		met := condition()
		p.mutex.Unlock()
		if met || !sleep(p.terminating, 20*time.Millisecond) {
			return met
		}
	}
}

// processes tells whether any container of the pod is a real process.
func (p *pod) processes() bool {
	for _, container := range p.containers {
		if _, real := container.program(); real {
			return true
		}
	}
	return false
}

// untilTerminating gives a context that ends with this one or when the pod is to end.
func (p *pod) untilTerminating(ctx context.Context) context.Context {
	both, cancel := context.WithCancel(ctx)
	context.AfterFunc(p.terminating, cancel)
	return both
}

// graceLeft is how long a container may still take to end.
func (p *pod) graceLeft() time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.deadline.IsZero() {
		grace := int64(30)
		if p.newest.Spec.TerminationGracePeriodSeconds != nil {
			grace = *p.newest.Spec.TerminationGracePeriodSeconds
		}
		return seconds(grace)
	}
	return max(time.Until(p.deadline), 0)
}

func (p *pod) object() *v1.Pod {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.newest
}

func (p *pod) name() string {
	object := p.object()
	return object.Namespace + "/" + object.Name
}

func (p *pod) address() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.addressLocked()
}

func (p *pod) addressLocked() string {
	if p.attachment != nil {
		return p.attachment.address
	}
	return p.hostAddress
}

// knobDuration reads a duration from an annotation; none counts as zero.
func (p *pod) knobDuration(knob string) time.Duration {
	text, ok := p.object().Annotations[knob]
	if !ok {
		return 0
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		p.kubelet.complain("%s: annotation %s: %v", p.name(), knob, err)
	}
	return length
}

// wake has the status posted.
func (p *pod) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *pod) wakeAfter(delay time.Duration) {
	if delay > 0 {
		time.AfterFunc(delay, p.wake)
	}
}

// event records an event about the pod.
func (p *pod) event(kind, reason, message string) {
	p.kubelet.recorder.Event(p.object(), kind, reason, message)
}
