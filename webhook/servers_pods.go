package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"remora.dev/remora/sidecar/routing"
)

// podWatch follows the pods of one Service or InferencePool: those that its selector means, and of them what their endpoints need.
type podWatch struct {
	selector string
	store    toolscache.Store
	synced   func() bool
	stop     context.CancelFunc
}

// podWatches are those that are open, by what they are for.
type podWatches struct {
	client  kubernetes.Interface
	changed func(namespace string)

	mu   sync.Mutex
	open map[routing.Ref]*podWatch
}

// want opens, of a namespace, the watches of selectors that are not open, and ends all others.
func (p *podWatches) want(namespace string, selectors map[routing.Ref]labels.Set) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ref, w := range p.open {
		if of, ok := selectors[ref]; ref.Namespace == namespace && (!ok || of.String() != w.selector) {
			w.stop()
			delete(p.open, ref)
		}
	}
	for ref, of := range selectors {
		if p.open[ref] == nil {
			p.open[ref] = p.follow(namespace, of.String())
		}
	}
}

// Start ends all watches when the controller does.
func (p *podWatches) Start(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.open {
		w.stop()
	}
	return nil
}

// pods gives those of ref; ok is false while they are not known.
func (p *podWatches) pods(ref routing.Ref) (pods []*corev1.Pod, ok bool) {
	p.mu.Lock()
	w := p.open[ref]
	p.mu.Unlock()
	if w == nil || !w.synced() {
		return nil, false
	}
	for _, o := range w.store.List() {
		if pod, ok := o.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	return pods, true
}

// follow opens a watch, which goes on after the pass that asks for it.
func (p *podWatches) follow(namespace, selector string) *podWatch {
	ctx, stop := context.WithCancel(context.Background())
	pods := p.client.CoreV1().Pods(namespace)
	store, informer := toolscache.NewInformerWithOptions(toolscache.InformerOptions{
		ListerWatcher: &toolscache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.LabelSelector = selector
				return pods.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.LabelSelector = selector
				return pods.Watch(ctx, options)
			},
		},
		ObjectType: &corev1.Pod{},
		Transform:  toServer,
		Handler: toolscache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { p.changed(namespace) },
			UpdateFunc: func(before, after any) {
				if !sameServer(before, after) {
					p.changed(namespace)
				}
			},
			DeleteFunc: func(any) { p.changed(namespace) },
		},
	})
	w := &podWatch{selector: selector, store: store, synced: informer.HasSynced, stop: stop}
	go informer.RunWithContext(ctx)
	go func() {
		if toolscache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			p.changed(namespace) // also where there is no pod
		}
	}()
	return w
}

// toServer keeps of a pod what says whether and where it serves: a hundredth of it. It may be called again with what it gave.
func toServer(from any) (any, error) {
	pod, ok := from.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("%T is not a pod", from)
	}
	little := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion, Labels: pod.Labels, DeletionTimestamp: pod.DeletionTimestamp,
	}}
	little.Spec.NodeName = pod.Spec.NodeName
	little.Spec.Containers = withNamedPorts(pod.Spec.Containers)
	// Of the init containers, only those that go on serve anything.
	little.Spec.InitContainers = withNamedPorts(slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), func(c corev1.Container) bool {
		return c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways
	}))
	little.Status.Phase, little.Status.PodIPs = pod.Status.Phase, pod.Status.PodIPs
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			little.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return little, nil
}

func withNamedPorts(all []corev1.Container) (kept []corev1.Container) {
	for i := range all {
		var ports []corev1.ContainerPort
		for _, p := range all[i].Ports {
			if p.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
			}
		}
		if ports != nil {
			always := all[i].RestartPolicy // so that it is kept again
			kept = append(kept, corev1.Container{Ports: ports, RestartPolicy: always})
		}
	}
	return kept
}

// sameServer tells whether two versions of a pod serve alike. The kubelet writes much that says nothing of that.
func sameServer(before, after any) bool {
	a, ok := before.(*corev1.Pod)
	b, okay := after.(*corev1.Pod)
	if !ok || !okay {
		return false
	}
	ending := func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }
	return a.UID == b.UID && ending(a) == ending(b) && equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec) && equality.Semantic.DeepEqual(a.Status, b.Status)
}
