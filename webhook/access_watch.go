package main

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"remora.dev/remora/apis/v1beta1"
)

const (
	// keptAtOnce is how many namespaces are worked on at a time. Each makes one request after the other.
	keptAtOnce = 16
	// keysGatherTime is how long a changed key waits for others: hardly, as it may be one that is to be revoked. Yet a Secret that is
	// written again and again must not be the only thing that is worked on.
	keysGatherTime = 10 * time.Millisecond
	// podsGatherTime is how long the ends of pods in a namespace without label are gathered until it is searched for more.
	podsGatherTime = time.Second
	// priorityHigh is for changed keys: one that is revoked does not wait for a thousand namespaces that were labelled just before.
	priorityHigh = 100
)

// cacheOptions says which objects are held, and what of them. installation is its namespace.
func cacheOptions(installation string) cache.Options {
	byName := func(name string) fields.Selector { return fields.OneTermEqualSelector(metav1.ObjectNameField, name) }
	injected, err := labels.NewRequirement(v1beta1.InjectedLabel, selection.Exists, nil)
	if err != nil {
		panic(err) // it is a constant
	}
	servers, err := labels.NewRequirement(v1beta1.ServersLabel, selection.Exists, nil)
	if err != nil {
		panic(err) // so is it
	}
	ours := cache.ByObject{Field: byName(v1beta1.SidecarName), Transform: keepMarks}
	return cache.Options{
		DefaultTransform: keepLittle,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Namespace{}:          {Transform: keepMarks},
			&corev1.Pod{}:                {Label: labels.NewSelector().Add(*injected), Transform: keepMarks},
			&corev1.Secret{}:             {Transform: keepMarks},
			&corev1.Node{}:               {Transform: keepZone},
			&discoveryv1.EndpointSlice{}: {Label: labels.NewSelector().Add(*servers), Transform: keepSlice},
			&corev1.ServiceAccount{}:     ours,
			&rbacv1.Role{}:               ours,
			&rbacv1.RoleBinding{}:        ours,
			&corev1.ConfigMap{}: {
				Namespaces: map[string]cache.Config{installation: {FieldSelector: byName(v1beta1.TrustedCAs)}},
			},
		},
	}
}

// telemetryCache holds the one ConfigMap that settings of telemetry are in. It is apart, as a cache has one name only of each kind, and the
// right to read all ConfigMaps of the installation is more than is needed.
func telemetryCache(m manager.Manager, installation string) (cache.Cache, error) {
	c, err := cache.New(m.GetConfig(), cache.Options{
		Scheme: m.GetScheme(), Mapper: m.GetRESTMapper(), HTTPClient: m.GetHTTPClient(),
		ByObject: map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {
			Namespaces: map[string]cache.Config{installation: {FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, v1beta1.Telemetry)}},
		}},
	})
	if err == nil {
		err = m.Add(c)
	}
	return c, err
}

// keepMarks is keepLittle, but for what tells whose an object is and what is asked for.
func keepMarks(in any) (any, error) {
	o, ok := in.(metav1.Object)
	if !ok {
		return in, nil
	}
	marks := map[string]string{}
	for _, name := range []string{v1beta1.PartOfLabel, v1beta1.InjectLabel, v1beta1.InjectedLabel} {
		if value, ok := o.GetLabels()[name]; ok {
			marks[name] = value
		}
	}
	reason, skipped := o.GetAnnotations()[v1beta1.SkipReason]
	gateways, has := o.GetAnnotations()[v1beta1.GatewayLabels]
	said := map[string]string{}
	for _, name := range telemetryAnnotations {
		if value, ok := o.GetAnnotations()[name]; ok {
			said[name] = value
		}
	}
	if _, err := keepLittle(in); err != nil {
		return nil, err
	}
	if len(marks) > 0 {
		o.SetLabels(marks)
	}
	for name, value := range said { // users can write 256 KiB there
		said[name] = clipped(value, maxAnnotation)
	}
	switch {
	case skipped:
		said = map[string]string{v1beta1.SkipReason: clipped(reason, maxNote)}
	case has:
		said[v1beta1.GatewayLabels] = gateways
	}
	if len(said) > 0 {
		o.SetAnnotations(said)
	}
	return in, nil
}

// newKeeper gives a keeper that works with what a manager has.
func newKeeper(m manager.Manager, settings client.Reader, around *surroundings, namespace string, times accessTimes, log logr.Logger) *keeper {
	return &keeper{
		client: m.GetClient(), live: m.GetAPIReader(), cached: m.GetCache(), events: m.GetEventRecorder(v1beta1.ControllerName),
		gauge: newAccessGauge(), log: log, config: m.GetConfig(), namespace: namespace, times: times,
		telemetry: &telemetrySettings{configMaps: settings},
		around:    around, full: &fullSecrets{left: map[types.UID]map[string]leftOut{}}, namespaces: map[string]*keptNamespace{},
	}
}

// addKeeper lets the manager run a keeper while it is the leader.
func addKeeper(m manager.Manager, k *keeper) error {
	if err := m.Add(manager.RunnableFunc(k.gauge.show)); err != nil {
		return fmt.Errorf("the metrics of access: %w", err)
	}
	sameName := true // several managers may be in one process, one after the other
	c, err := controller.New("access", m, controller.Options{
		Reconciler: k, MaxConcurrentReconciles: keptAtOnce, SkipNameValidation: &sameName,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFrom, retryTo),
	})
	if err != nil {
		return fmt.Errorf("the keeper of access: %w", err)
	}
	if err := c.Watch(source.Func(func(_ context.Context, q statusQueue) error { return k.followGateways(q) })); err != nil {
		return fmt.Errorf("the watch on Gateways: %w", err)
	}
	watches := map[client.Object]handler.Funcs{
		metadataOf("Namespace"): k.handler(func(q statusQueue, o client.Object, priority int) { k.enqueue(q, o.GetName(), priority, 0) }),
		metadataOf("Pod"):       k.handler(k.podChanged),
		secretMetadata():        k.handler(k.secretChanged),
		&corev1.ConfigMap{}: k.handler(func(q statusQueue, _ client.Object, priority int) {
			for _, namespace := range k.kept() {
				k.enqueue(q, namespace, priority, gatherTime)
			}
		}),
		providers(): k.handler(k.providerChanged),
	}
	for _, u := range identity("") {
		blank := providers()
		blank.SetGroupVersionKind(u.GroupVersionKind())
		watches[blank] = k.handler(func(q statusQueue, o client.Object, priority int) {
			k.enqueue(q, o.GetNamespace(), priority, gatherTime)
		})
	}
	settings, ok := k.telemetry.configMaps.(cache.Cache)
	if !ok {
		return fmt.Errorf("the watch on ConfigMap %s: there is no cache of it", v1beta1.Telemetry)
	}
	if err := c.Watch(source.Kind[client.Object](settings, &corev1.ConfigMap{}, k.handler(func(q statusQueue, _ client.Object, priority int) {
		for _, namespace := range k.kept() {
			k.enqueue(q, namespace, priority, keysGatherTime)
		}
	}))); err != nil {
		return fmt.Errorf("the watch on ConfigMap %s: %w", v1beta1.Telemetry, err)
	}
	for o, h := range watches {
		if err := c.Watch(source.Kind[client.Object](m.GetCache(), o, h)); err != nil {
			return fmt.Errorf("the watch on %s: %w", o.GetObjectKind().GroupVersionKind().Kind, err)
		}
	}
	return nil
}

// handler calls changed for what comes, goes, or has another version. A change of status only does not count where it can be told.
func (k *keeper) handler(changed func(statusQueue, client.Object, int)) handler.Funcs {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q statusQueue) {
			changed(q, e.Object, priorityOf(e.IsInInitialList))
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q statusQueue) {
			before, after := e.ObjectOld, e.ObjectNew
			statusOnly := after.GetGeneration() != 0 && before.GetGeneration() == after.GetGeneration() && before.GetUID() == after.GetUID() &&
				after.GetObjectKind().GroupVersionKind().Kind == v1beta1.KindLLMProvider
			if before.GetResourceVersion() != after.GetResourceVersion() && !statusOnly {
				changed(q, before, 0) // whom it concerned
				changed(q, after, 0)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q statusQueue) { changed(q, e.Object, 0) },
	}
}

func (k *keeper) secretChanged(q statusQueue, o client.Object, priority int) {
	if o.GetNamespace() == k.namespace && o.GetName() == v1beta1.Telemetry {
		for _, namespace := range k.kept() {
			k.enqueue(q, namespace, priority, keysGatherTime)
		}
	}
	if isReserved(o.GetNamespace(), o.GetName()) {
		k.enqueue(q, o.GetNamespace(), priority, gatherTime)
		return
	}
	for _, namespace := range k.users(client.ObjectKeyFromObject(o)) {
		k.enqueue(q, namespace, priorityHigh, keysGatherTime)
	}
}

// providerChanged matters to the provider's namespace, and to those that it is exported to.
func (k *keeper) providerChanged(q statusQueue, o client.Object, priority int) {
	k.enqueue(q, o.GetNamespace(), max(priority, priorityLow+1), gatherTime)
	u, ok := o.(*unstructured.Unstructured)
	if !ok || o.GetNamespace() != k.namespace {
		return
	}
	if priority == 0 {
		priority = priorityHigh // it may be withdrawn, and its keys with it
	}
	to := writtenTargets(u)
	for _, namespace := range k.kept() {
		if exportsTo(to, namespace) {
			k.enqueue(q, namespace, priority, keysGatherTime)
		}
	}
}

// podChanged matters where a namespace is kept only because of its pods.
func (k *keeper) podChanged(q statusQueue, o client.Object, priority int) {
	if o.GetLabels()[v1beta1.InjectedLabel] == "true" && k.leaves(o.GetNamespace()) {
		k.enqueue(q, o.GetNamespace(), priority, podsGatherTime)
	}
}

func (k *keeper) enqueue(q statusQueue, namespace string, priority int, after time.Duration) {
	request := reconcile.Request{NamespacedName: types.NamespacedName{Name: namespace}}
	if pq, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		pq.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: &priority}, request)
		return
	}
	q.AddAfter(request, after)
}
