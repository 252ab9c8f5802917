package main

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The wait before a call that the apiserver refused is tried again.
const retryDelay = 200 * time.Millisecond

// postStatus posts the status each time that it changes, until the object is gone.
func (p *pod) postStatus() {
	var posted *v1.PodStatus
	for {
		select {
		case <-p.gone:
			return
		case <-p.changed:
		}
		status := p.status()
		if posted != nil && equality.Semantic.DeepEqual(posted, status) {
			continue
		}
		err := p.patchStatus(status)
		switch {
		case err == nil:
			posted = status
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			// The object is gone, or another one has its name: the watch says so too.
		default:
			p.kubelet.complain("status of %s: %v", p.name(), err)
			time.AfterFunc(retryDelay, p.wake)
		}
	}
}

func (p *pod) patchStatus(status *v1.PodStatus) error {
	object := p.object()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": object.UID}, "status": status})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = p.kubelet.client.CoreV1().Pods(object.Namespace).Patch(ctx, object.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// status is what the API is to show.
func (p *pod) status() *v1.PodStatus {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	status := &v1.PodStatus{
		Phase:     p.phase(),
		HostIP:    p.nodeAddress,
		StartTime: &p.started,
		QOSClass:  p.newest.Status.QOSClass,
	}
	status.HostIPs = []v1.HostIP{{IP: status.HostIP}}
	if address := p.addressLocked(); address != "" {
		status.PodIP, status.PodIPs = address, []v1.PodIP{{IP: address}}
	}
	ready := true
	for _, container := range p.containers {
		shown := *container.status.DeepCopy()
		shown.Ready = p.containerReady(container)
		if p.trouble != "" && shown.State.Waiting != nil {
			shown.State.Waiting.Message = p.trouble
		}
		if container.init {
			status.InitContainerStatuses = append(status.InitContainerStatuses, shown)
			ready = ready && (shown.Ready || !container.sidecar())
		} else {
			status.ContainerStatuses = append(status.ContainerStatuses, shown)
			ready = ready && shown.Ready
		}
	}
	p.conditions(status, ready)
	return status
}

func (p *pod) containerReady(container *container) bool {
	if container.init && !container.sidecar() {
		terminated := container.status.State.Terminated
		return terminated != nil && terminated.ExitCode == 0
	}
	return container.status.State.Running != nil && container.probedReady && !time.Now().Before(container.readyFrom) &&
		p.newest.Annotations[readyKnob] != "false"
}

// phase follows from the states of the containers.
func (p *pod) phase() v1.PodPhase {
	ended, failed := true, false
	for _, container := range p.containers {
		terminated := container.status.State.Terminated
		if container.init && !container.sidecar() {
			if terminated != nil && terminated.ExitCode != 0 && !container.restartsLocked(terminated.ExitCode) {
				return v1.PodFailed
			}
			continue
		}
		if container.sidecar() {
			continue
		}
		if terminated == nil || p.terminating.Err() == nil && container.restartsLocked(terminated.ExitCode) {
			ended = false
		} else if terminated.ExitCode != 0 {
			failed = true
		}
	}
	switch {
	case ended && failed:
		return v1.PodFailed
	case ended:
		return v1.PodSucceeded
	case p.initialized:
		return v1.PodRunning
	default:
		return v1.PodPending
	}
}

// conditions fills in the conditions; those of others are kept.
func (p *pod) conditions(status *v1.PodStatus, containersReady bool) {
	ready := containersReady
	for _, gate := range p.newest.Spec.ReadinessGates {
		ready = ready && slices.ContainsFunc(p.newest.Status.Conditions, func(condition v1.PodCondition) bool {
			return condition.Type == gate.ConditionType && condition.Status == v1.ConditionTrue
		})
	}
	notReady := ""
	if !containersReady {
		notReady = "ContainersNotReady"
	} else if !ready {
		notReady = "ReadinessGatesNotReady"
	}
	ours := []v1.PodCondition{
		{Type: v1.PodScheduled, Status: condition(true)},
		{Type: v1.PodInitialized, Status: condition(p.initialized)},
		{Type: v1.ContainersReady, Status: condition(containersReady), Reason: notReady},
		{Type: v1.PodReady, Status: condition(ready), Reason: notReady},
	}
	for _, old := range p.newest.Status.Conditions {
		if !slices.ContainsFunc(ours, func(condition v1.PodCondition) bool { return condition.Type == old.Type }) {
			status.Conditions = append(status.Conditions, old)
		}
	}
	for _, condition := range ours {
		condition.LastTransitionTime = p.since(condition)
		status.Conditions = append(status.Conditions, condition)
	}
}

// since says since when the condition has been as it is.
func (p *pod) since(condition v1.PodCondition) metav1.Time {
	if p.transitions == nil {
		p.transitions = map[v1.PodConditionType]v1.PodCondition{}
	}
	last, ok := p.transitions[condition.Type]
	if !ok || last.Status != condition.Status {
		// The API keeps whole seconds; more would look like a change.
		condition.LastTransitionTime = metav1.Now().Rfc3339Copy()
		p.transitions[condition.Type] = condition
		last = condition
	}
	return last.LastTransitionTime
}

func condition(met bool) v1.ConditionStatus {
	if met {
		return v1.ConditionTrue
	}
	return v1.ConditionFalse
}

// deleteObject posts the last status and takes the object out of the API, unless another one has its name by now.
func (p *pod) deleteObject() {
	object := p.object()
	zero := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &object.UID}}
	for {
		select {
		case <-p.gone:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := p.kubelet.client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, options)
		cancel()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		p.kubelet.complain("deletion of %s: %v", p.name(), err)
		select {
		case <-p.gone:
		case <-time.After(retryDelay):
		}
	}
}
