package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

const (
	// maxServersKept is how many endpoints are kept for the subsets and pools of one namespace. A DestinationRule of a thousand subsets, each
	// of which means all of a thousand pods, would fill the cluster's database otherwise.
	maxServersKept = 50_000
	// serversGatherTime is how long one endpoint more lets changes wait for others: each is written with the hundreds that share its
	// EndpointSlice. Ten thousand of them are written once a second at most.
	serversGatherTime = 100 * time.Microsecond
	// tooManyServers is the code of the event.
	tooManyServers = "TooManyServers"
)

// serverKeeper keeps EndpointSlices that say who the servers of subsets and InferencePools are, for those that some object names.
// Data planes read them, and no pods.
type serverKeeper struct {
	client       client.Client // writes
	cached       client.Reader
	events       events.EventRecorder
	surroundings *surroundings
	demands      func(ctx context.Context, namespace string) ([]routing.ServersID, error) // what is named; sorted
	pods         *podWatches
	log          logr.Logger

	mu    sync.Mutex
	stale map[string]bool                // namespaces whose objects have changed since they were looked through
	named map[string][]routing.ServersID // what they name
	sizes map[string]int                 // endpoints of a namespace
	told  map[string]string              // the last event of a namespace
}

// Reconcile makes the EndpointSlices of a namespace as they should be. The queue hands a namespace out once at a time.
func (k *serverKeeper) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	namespace := request.Name
	if !k.surroundings.known() {
		return reconcile.Result{RequeueAfter: retryFrom}, nil
	}
	named, err := k.namedIn(ctx, namespace)
	if errors.Is(err, errNotSynced) {
		return reconcile.Result{RequeueAfter: retryFrom}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	var all discoveryv1.EndpointSliceList
	if err := k.cached.List(ctx, &all, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("the EndpointSlices of namespace %s cannot be listed: %w", namespace, err)
	}
	have := map[routing.ServersID][]*discoveryv1.EndpointSlice{}
	for i := range all.Items {
		s := &all.Items[i]
		have[servedBy(s)] = append(have[servedBy(s)], s)
	}
	targets := k.targets(namespace, named)
	var plan slicePlan
	size, left := 0, 0
	for _, id := range named {
		target := targets[id.Name+"/"+id.Kind]
		slicesOf := have[id]
		delete(have, id)
		if target == nil { // it is gone, or nobody's
			plan.remove = append(plan.remove, slicesOf...)
			continue
		}
		pods, ok := k.pods.pods(target.ref)
		if !ok {
			continue // they are being read, and what is there stays
		}
		members := membersOf(pods, id.Subset)
		if size+len(members) > maxServersKept {
			left++
			have[id] = slicesOf
			continue
		}
		size += len(members)
		more := planSlices(slicesOf, groupServers(target, members, k.zones(ctx)), sliceForm(id, target))
		plan.create, plan.update, plan.remove = append(plan.create, more.create...), append(plan.update, more.update...), append(plan.remove, more.remove...)
	}
	for _, slicesOf := range have { // nobody names them any more
		plan.remove = append(plan.remove, slicesOf...)
	}
	k.tell(namespace, size, left)
	return k.write(ctx, namespace, plan)
}

// targets gives the Services and InferencePools that have the servers named, by name and kind, and opens the watches of their pods.
func (k *serverKeeper) targets(namespace string, named []routing.ServersID) map[string]*thing {
	found, selectors := map[string]*thing{}, map[routing.Ref]labels.Set{}
	for _, id := range named {
		ref := routing.Ref{Kind: id.Kind, Namespace: id.Namespace, Name: id.Name}
		target := k.surroundings.get(ref)
		if target == nil {
			continue
		}
		selector := labels.Set(nil)
		if target.service != nil {
			selector = target.service.Selector
		}
		for _, pool := range target.content.InferencePools {
			selector = pool.Selector
		}
		if len(selector) == 0 { // it would be all pods; Kubernetes takes it for none, too
			continue
		}
		found[id.Name+"/"+id.Kind], selectors[ref] = target, selector
	}
	k.pods.want(namespace, selectors)
	return found
}

// membersOf gives the pods that have the labels of a subset: NAME=VALUE,….
func membersOf(pods []*corev1.Pod, subset string) []*corev1.Pod {
	if subset == "" {
		return pods
	}
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool {
		for wanted := range strings.SplitSeq(subset, ",") {
			name, value, _ := strings.Cut(wanted, "=")
			if have, ok := pod.Labels[name]; !ok || have != value {
				return true
			}
		}
		return false
	})
}

// zones tells the zones of nodes, of each once.
func (k *serverKeeper) zones(ctx context.Context) func(string) string {
	known := map[string]string{}
	return func(name string) string {
		zone, ok := known[name]
		if !ok {
			node := metadataOf("Node")
			if err := k.cached.Get(ctx, types.NamespacedName{Name: name}, node); err == nil {
				zone = node.Labels[corev1.LabelTopologyZone]
			} // what is not known of a node is nothing that its pods could not be called without
			known[name] = zone
		}
		return zone
	}
}

// namedIn gives what objects name of a namespace. They are looked through anew only when they have changed.
func (k *serverKeeper) namedIn(ctx context.Context, namespace string) ([]routing.ServersID, error) {
	k.mu.Lock()
	named, ok := k.named[namespace]
	ok = ok && !k.stale[namespace]
	delete(k.stale, namespace)
	k.mu.Unlock()
	if ok {
		return named, nil
	}
	named, err := k.demands(ctx, namespace)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.stale[namespace] = true
		return nil, err
	}
	if k.named[namespace] = named; len(named) == 0 {
		delete(k.named, namespace)
	}
	return named, nil
}

// write does what is planned. What somebody else has changed meanwhile is looked at again when the cache shows it.
func (k *serverKeeper) write(ctx context.Context, namespace string, plan slicePlan) (reconcile.Result, error) {
	var all []func() error
	// What is new before what goes: a pod that moves from one to the other is in both for a moment, and not in none.
	for _, s := range plan.create {
		all = append(all, func() error {
			made := s.DeepCopy()
			made.GenerateName = ""
			return k.written(s, made, k.client.Create(ctx, made, client.FieldOwner(v1beta1.ControllerName)))
		})
	}
	for _, s := range plan.update {
		all = append(all, func() error {
			made := s.DeepCopy()
			made.GenerateName = ""
			return k.written(s, made, k.client.Update(ctx, made, client.FieldOwner(v1beta1.ControllerName)))
		})
	}
	failed := inParallel(len(all), func(i int) error { return all[i]() })
	if failed == nil {
		failed = inParallel(len(plan.remove), func(i int) error {
			uid, version := plan.remove[i].UID, plan.remove[i].ResourceVersion
			gone := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: plan.remove[i].Name}}
			return client.IgnoreNotFound(k.client.Delete(ctx, gone, client.Preconditions{UID: &uid, ResourceVersion: &version}))
		})
	}
	switch {
	case failed == nil:
		if n := len(all) + len(plan.remove); n > 0 {
			k.log.V(1).Info("servers written", "namespace", namespace, "endpointslices", n)
		}
		return reconcile.Result{}, nil
	case namespaceEnds(failed):
		return reconcile.Result{}, nil
	case onlyConflicts(failed):
		return reconcile.Result{RequeueAfter: retryFrom}, nil
	}
	return reconcile.Result{}, fmt.Errorf("the EndpointSlices of namespace %s cannot be written: %w", namespace, failed)
}

// written says what came of a write.
func (k *serverKeeper) written(wanted, made *discoveryv1.EndpointSlice, err error) error {
	if err == nil && (!equality.Semantic.DeepEqual(wanted.Endpoints, made.Endpoints) || !isFormed(made, wanted)) {
		err = errChangedOnItsWay
	}
	if err != nil {
		return fmt.Errorf("EndpointSlice %s: %w", wanted.Name, err)
	}
	return nil
}

// onlyConflicts tells whether nothing failed but for a cache that is behind.
func onlyConflicts(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return !onlyConflicts(err) })
	}
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}

// tell notes how much a namespace has, and says where that is too much.
func (k *serverKeeper) tell(namespace string, size, left int) {
	message := ""
	if left > 0 {
		message = fmt.Sprintf("%d subsets of Services or InferencePools have no servers, because those of the others are %d already and %d are kept at most: "+
			"let VirtualServices and LLMRoutes name fewer subsets, or with fewer pods in common", left, size, maxServersKept)
	}
	k.mu.Lock()
	news := k.told[namespace] != message
	k.told[namespace], k.sizes[namespace] = message, size
	if message == "" {
		delete(k.told, namespace)
	}
	if size == 0 {
		delete(k.sizes, namespace)
	}
	k.mu.Unlock()
	if message == "" || !news {
		return
	}
	k.log.Info("a namespace cannot have all servers that it names", "namespace", namespace, "code", tooManyServers, "why", message)
	regarding := &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: namespace, Name: namespace}
	k.events.Eventf(regarding, nil, corev1.EventTypeWarning, tooManyServers, "KeepServers", "%s", message)
}

// pause is how long changes of pods are gathered.
func (k *serverKeeper) pause(namespace string) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(gatherTime, time.Duration(k.sizes[namespace])*serversGatherTime)
}

// outdate has a namespace's objects looked through again.
func (k *serverKeeper) outdate(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stale[namespace] = true
}

// sortedServers brings them into an order that has the same ones left out where there are too many.
func sortedServers(all map[routing.ServersID]bool) []routing.ServersID {
	var sorted []routing.ServersID
	for id := range all {
		sorted = append(sorted, id)
	}
	slices.SortFunc(sorted, func(a, b routing.ServersID) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Subset, b.Subset))
	})
	return sorted
}

var errNotSynced = errors.New("not everything has been read yet")
