package main

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// How often a node says that it lives, and how long that holds.
const (
	heartbeatEvery = 5 * time.Second
	leaseSeconds   = 40
)

// capacity is what every node claims to have; nothing checks it.
func capacity() v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:              resource.MustParse("64"),
		v1.ResourceMemory:           resource.MustParse("256Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("256Gi"),
		v1.ResourcePods:             resource.MustParse("1000"),
		"nvidia.com/gpu":            resource.MustParse("64"),
	}
}

// register creates the node with its status and lease.
func (k *kubelet) register(ctx context.Context, name, address string, number int) error {
	zone := "zone-" + string(rune('a'+number%26))
	node := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			v1.LabelHostname:       name,
			v1.LabelOSStable:       "linux",
			v1.LabelArchStable:     "amd64",
			v1.LabelTopologyZone:   zone,
			v1.LabelTopologyRegion: "region",
		}},
	}
	if _, err := k.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return err
	}
	now := metav1.Now()
	status := v1.NodeStatus{
		Capacity:    capacity(),
		Allocatable: capacity(),
		Addresses:   []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}, {Type: v1.NodeHostName, Address: name}},
		NodeInfo:    v1.NodeSystemInfo{KubeletVersion: "v1.37.1", OperatingSystem: "linux", Architecture: runtime.GOARCH},
		Conditions: []v1.NodeCondition{{
			Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now,
		}},
	}
	// Not an update: the node controller may have changed the object already.
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	if _, err := k.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	return k.renew(ctx, name)
}

// heartbeat renews the leases until the context ends.
func (k *kubelet) heartbeat(ctx context.Context) {
	every := time.NewTicker(heartbeatEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		for _, name := range k.living() {
			limited, cancel := context.WithTimeout(ctx, heartbeatEvery)
			// A node that is gone by now has no lease to renew.
			if err := k.renew(limited, name); err != nil && ctx.Err() == nil {
				k.complain("lease of %s: %v", name, err)
			}
			cancel()
		}
	}
}

// renew writes the node's lease anew.
func (k *kubelet) renew(ctx context.Context, name string) error {
	leases := k.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	now, seconds := metav1.NowMicro(), int32(leaseSeconds)
	lease, err := leases.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		fresh := &coordination.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1.NamespaceNodeLease},
			Spec:       coordination.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}
		_, err = leases.Create(ctx, fresh, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}
