package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// How often every pod is looked at again without news: a binding that failed is tried again then.
const resync = 2 * time.Second

// A kubelet for all nodes of the cluster, and their scheduler where no other is.
type kubelet struct {
	client     kubernetes.Interface
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
	recorder   record.EventRecorder
	network    *network
	folder     string
	runner     string            // the program run-container
	images     map[string]string // programs by image name
	log        io.Writer

	names  []string // of its own nodes
	places bool     // whether it is the scheduler too
	adopts bool     // whether it is the agent of nodes that others create

	mutex   sync.Mutex
	nodes   map[string]string // addresses of all its nodes by name
	adopted int               // how many nodes of others there ever were
	pods    map[types.UID]*pod
	binding map[types.UID]bool
	turn    int
}

// start registers the nodes and takes on pods until the context ends.
func (k *kubelet) start(ctx context.Context) error {
	for number, name := range k.names {
		address, _ := k.address(name)
		if err := k.register(ctx, name, address, number); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	go k.heartbeat(ctx)
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: k.client.CoreV1().Events("")})
	k.recorder = broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet"})

	factory := informers.NewSharedInformerFactory(k.client, resync)
	k.configMaps = factory.Core().V1().ConfigMaps().Lister()
	k.secrets = factory.Core().V1().Secrets().Lister()
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("no list of %v", kind)
		}
	}
	pods := factory.Core().V1().Pods().Informer()
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { k.see(ctx, object.(*v1.Pod)) },
		UpdateFunc: func(_, object any) { k.see(ctx, object.(*v1.Pod)) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			if object, ok := object.(*v1.Pod); ok {
				k.forget(object.UID)
			}
		},
	})
	if err == nil && k.adopts {
		err = k.adoptNodes(ctx, factory.Core().V1().Nodes().Informer())
	}
	factory.Start(ctx.Done())
	return err
}

// address gives the address of a node, if it is one of this kubelet's.
func (k *kubelet) address(node string) (string, bool) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	address, ours := k.nodes[node]
	return address, ours
}

// see takes in a new or changed pod.
func (k *kubelet) see(ctx context.Context, object *v1.Pod) {
	if object.Spec.NodeName == "" {
		if k.places && object.DeletionTimestamp == nil && len(object.Spec.SchedulingGates) == 0 && object.Spec.SchedulerName == v1.DefaultSchedulerName {
			k.bind(ctx, object)
		}
		return
	}
	if _, ours := k.address(object.Spec.NodeName); !ours {
		return
	}
	k.mutex.Lock()
	known, ok := k.pods[object.UID]
	if !ok {
		known = newPod(k, object)
		// First what it is told, then its life: one that is to end must not begin.
		known.see(object)
		k.pods[object.UID] = known
		go func() {
			known.run()
			k.mutex.Lock()
			defer k.mutex.Unlock()
			delete(k.pods, known.uid)
		}()
	}
	k.mutex.Unlock()
	known.see(object)
}

// forget ends a pod whose object is gone.
func (k *kubelet) forget(uid types.UID) {
	k.mutex.Lock()
	known := k.pods[uid]
	k.mutex.Unlock()
	if known != nil {
		known.vanish()
	}
}

// stop kills every process of every pod, and waits a little for their ends.
func (k *kubelet) stop() {
	k.mutex.Lock()
	for _, pod := range k.pods {
		pod.vanish()
	}
	k.mutex.Unlock()
	for deadline := time.Now().Add(stopPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		k.mutex.Lock()
		left := len(k.pods)
		k.mutex.Unlock()
		if left == 0 {
			return
		}
	}
}

// find gives the pod with that namespace/name; of several, one that is not on its way out.
func (k *kubelet) find(name string) (*pod, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	var found *pod
	for _, pod := range k.pods {
		if pod.name() == name && (found == nil || pod.terminating.Err() == nil) {
			found = pod
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no pod %q runs here (name it NAMESPACE/NAME)", name)
	}
	return found, nil
}

// bind gives a pod to the next node.
func (k *kubelet) bind(ctx context.Context, object *v1.Pod) {
	k.mutex.Lock()
	busy := k.binding[object.UID]
	k.binding[object.UID] = true
	node := k.names[k.turn%len(k.names)]
	if !busy {
		k.turn++
	}
	k.mutex.Unlock()
	if busy {
		return
	}
	go func() {
		binding := &v1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace, Name: object.Name, UID: object.UID},
			Target:     v1.ObjectReference{Kind: "Node", Name: node},
		}
		err := k.client.CoreV1().Pods(object.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			k.complain("binding of %s/%s to %s: %v", object.Namespace, object.Name, node, err)
		}
		k.mutex.Lock()
		defer k.mutex.Unlock()
		delete(k.binding, object.UID)
	}()
}

// complain writes to the log of the nodes.
func (k *kubelet) complain(format string, arguments ...any) {
	fmt.Fprintf(k.log, time.Now().Format(time.RFC3339)+" "+format+"\n", arguments...)
}
