package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// adoptNodes makes this kubelet the agent of every node that others create: it is Ready, has a lease, and pods run there.
func (k *kubelet) adoptNodes(ctx context.Context, nodes cache.SharedIndexInformer) error {
	_, err := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { k.adopt(ctx, object.(*v1.Node)) },
		// The same on every resync: what failed is tried again then.
		UpdateFunc: func(_, object any) { k.adopt(ctx, object.(*v1.Node)) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			if node, ok := object.(*v1.Node); ok && !slices.Contains(k.names, node.Name) {
				k.mutex.Lock()
				defer k.mutex.Unlock()
				delete(k.nodes, node.Name)
			}
		},
	})
	return err
}

// adopt takes on a node of others, once.
func (k *kubelet) adopt(ctx context.Context, node *v1.Node) {
	if _, ours := k.address(node.Name); ours || node.DeletionTimestamp != nil {
		return
	}
	k.mutex.Lock()
	number := len(k.names) + k.adopted
	k.adopted++
	k.mutex.Unlock()
	address, err := k.network.nodeAddress(number)
	if err == nil {
		err = k.makeReady(ctx, node.Name, address)
	}
	if err != nil {
		if ctx.Err() == nil && !apierrors.IsNotFound(err) {
			k.complain("agent of node %s: %v", node.Name, err)
		}
		return
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.nodes[node.Name] = address
}

// makeReady says that the node is Ready; capacity is up to who created it.
func (k *kubelet) makeReady(ctx context.Context, name, address string) error {
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"addresses": []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}, {Type: v1.NodeHostName, Address: name}},
		"conditions": []v1.NodeCondition{{
			Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now,
		}},
	}})
	if err != nil {
		return err
	}
	// Before it is Ready: without a lease it would soon count as lost.
	if err := k.renew(ctx, name); err != nil {
		return err
	}
	_, err = k.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// living names all nodes that this kubelet is the agent of.
func (k *kubelet) living() []string {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return slices.Sorted(maps.Keys(k.nodes))
}

// own gives the addresses of the nodes that this kubelet created.
func (k *kubelet) own() map[string]string {
	own := map[string]string{}
	for _, name := range k.names {
		own[name], _ = k.address(name)
	}
	return own
}
