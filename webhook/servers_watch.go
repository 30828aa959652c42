package main

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// keepZone is keepLittle, but for the zone of a node.
func keepZone(in any) (any, error) {
	o, ok := in.(metav1.Object)
	if !ok {
		return in, nil
	}
	zone, known := o.GetLabels()[corev1.LabelTopologyZone]
	if _, err := keepLittle(in); err != nil {
		return nil, err
	}
	if known {
		o.SetLabels(map[string]string{corev1.LabelTopologyZone: zone})
	}
	return in, nil
}

// keepSlice leaves out of our EndpointSlices who wrote them.
func keepSlice(in any) (any, error) {
	if o, ok := in.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return in, nil
}

// addServerKeeper lets the manager run a keeper of servers while it is the leader. demands gives what the objects of all namespaces
// name of the servers of one, and is asked again for a namespace when its own objects have changed, or when it was told by the
// function that this gives: so, before the manager starts.
func addServerKeeper(m manager.Manager, s *surroundings, demands func(context.Context, string) ([]routing.ServersID, error), log logr.Logger) (outdated func(string), err error) {
	config := rest.CopyConfig(m.GetConfig())
	config.ContentType = "application/vnd.kubernetes.protobuf"
	pods, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("the keeper of servers: %w", err)
	}
	k := &serverKeeper{
		client: m.GetClient(), cached: m.GetCache(), events: m.GetEventRecorder(v1beta1.ControllerName), surroundings: s, demands: demands, log: log,
		stale: map[string]bool{}, named: map[string][]routing.ServersID{}, sizes: map[string]int{}, told: map[string]string{},
	}
	c, queue, err := newLate(m, "servers", k, namespacesAtOnce)
	if err != nil {
		return nil, err
	}
	again := queue.add
	k.pods = &podWatches{client: pods, open: map[routing.Ref]*podWatch{}, changed: func(namespace string) { again(namespace, k.pause(namespace)) }}
	if err := m.Add(k.pods); err != nil {
		return nil, fmt.Errorf("the keeper of servers: %w", err)
	}
	outdated = func(namespace string) {
		k.outdate(namespace)
		again(namespace, gatherTime)
	}
	if err := s.follow(func(before, after *thing) {
		switch {
		case after == nil:
			after = before
		case before != nil && after.Generation != 0 && before.Generation == after.Generation && before.UID == after.UID:
			return // it is the status
		}
		outdated(after.Namespace)
	}); err != nil {
		return nil, fmt.Errorf("the keeper of servers: %w", err)
	}
	if _, err := m.GetCache().GetInformer(context.Background(), metadataOf("Node"), cache.BlockUntilSynced(false)); err != nil {
		return nil, fmt.Errorf("the watch on Nodes: %w", err)
	}
	for _, o := range []client.Object{providers(), routes(), &discoveryv1.EndpointSlice{}} {
		if err := c.Watch(source.Kind(m.GetCache(), o, serversHandler(k, outdated, again))); err != nil {
			return nil, fmt.Errorf("the watch on %T: %w", o, err)
		}
	}
	return outdated, nil
}

// serversHandler has the namespace of an object looked at: its own EndpointSlices, which others may have changed, or what names them.
func serversHandler(k *serverKeeper, outdated func(string), again func(string, time.Duration)) handler.Funcs {
	changed := func(o client.Object) {
		if _, ours := o.(*discoveryv1.EndpointSlice); ours {
			again(o.GetNamespace(), k.pause(o.GetNamespace()))
			return
		}
		outdated(o.GetNamespace())
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ statusQueue) { changed(e.Object) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ statusQueue) {
			before, after := e.ObjectOld, e.ObjectNew
			statusOnly := after.GetGeneration() != 0 && before.GetGeneration() == after.GetGeneration() && before.GetUID() == after.GetUID()
			if _, slice := after.(*discoveryv1.EndpointSlice); before.GetResourceVersion() != after.GetResourceVersion() && (slice || !statusOnly) {
				changed(after)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ statusQueue) { changed(e.Object) },
	}
}
