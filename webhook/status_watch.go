package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
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
	// gatherTime is how long a namespace waits for further changes before it is compiled: what is applied together is judged together.
	gatherTime = 50 * time.Millisecond
	// A namespace in which something fails is tried again, at first after retryFrom, then ever later up to retryTo.
	retryFrom, retryTo = 200 * time.Millisecond, 30 * time.Second
	// namespacesAtOnce are judged at a time.
	namespacesAtOnce = 4
	// What is there when the controller starts, and what it has written itself, waits for what users have changed just now.
	priorityLow = -100
)

type statusQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func statusScheme(s *runtime.Scheme) error {
	return errors.Join(corev1.AddToScheme(s), v1beta1.AddToScheme(s))
}

// addStatusWriter lets the manager run a status writer while it is the leader.
func addStatusWriter(m manager.Manager, s *surroundings, full *fullSecrets, log logr.Logger) (*statusWriter, error) {
	secrets, err := newSecretKnowledge(m.GetCache(), m.GetAPIReader())
	if err != nil {
		return nil, err
	}
	w := &statusWriter{
		cached: m.GetCache(), writer: m.GetClient().Status(), events: m.GetEventRecorder(v1beta1.ControllerName),
		secrets: secrets, full: full, gauge: newObjectsGauge(), log: log, namespaces: map[string]map[types.UID]*judged{},
		surroundings: s, began: time.Now(),
	}
	if err := m.Add(manager.RunnableFunc(w.gauge.show)); err != nil {
		return nil, fmt.Errorf("the metrics of the status: %w", err)
	}
	sameName := true // several managers may be in one process, one after the other
	c, err := controller.New("status", m, controller.Options{
		Reconciler: w, MaxConcurrentReconciles: namespacesAtOnce, SkipNameValidation: &sameName,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFrom, retryTo),
	})
	if err != nil {
		return nil, fmt.Errorf("the status writer: %w", err)
	}
	for _, gvk := range statusKinds {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(gvk)
		if err := c.Watch(source.Kind[client.Object](m.GetCache(), u, w.objectHandler())); err != nil {
			return nil, fmt.Errorf("the watch on %s: %w", gvk.Kind, err)
		}
	}
	if err := c.Watch(source.Kind[client.Object](m.GetCache(), secretMetadata(), w.secretHandler())); err != nil {
		return nil, fmt.Errorf("the watch on Secrets: %w", err)
	}
	if err := c.Watch(source.Func(func(_ context.Context, q statusQueue) error {
		full.tell(func(namespace string) { enqueue(q, namespace, 0) })
		return w.followSurroundings(q)
	})); err != nil {
		return nil, fmt.Errorf("the watch on full Secrets: %w", err)
	}
	return w, nil
}

// objectHandler puts the namespace of a changed object into the queue, and those that use it.
func (w *statusWriter) objectHandler() handler.Funcs {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q statusQueue) {
			enqueue(q, e.Object.GetNamespace(), priorityOf(e.IsInInitialList))
			w.enqueueUsers(q, e.Object)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q statusQueue) {
			if e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || e.ObjectOld.GetUID() != e.ObjectNew.GetUID() {
				enqueue(q, e.ObjectNew.GetNamespace(), 0)
				w.enqueueUsers(q, e.ObjectOld, e.ObjectNew)
			} else if !reflect.DeepEqual(statusOf(e.ObjectOld), statusOf(e.ObjectNew)) { // ours, as a rule; but others may overwrite it
				enqueue(q, e.ObjectNew.GetNamespace(), priorityLow)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q statusQueue) {
			enqueue(q, e.Object.GetNamespace(), 0)
			w.enqueueUsers(q, e.Object)
		},
	}
}

// secretHandler does so for a Secret, where an object of the namespace names it.
func (w *statusWriter) secretHandler() handler.Funcs {
	changed := func(q statusQueue, o client.Object) {
		if w.secrets.names(o.GetNamespace(), o.GetName()) {
			enqueue(q, o.GetNamespace(), 0)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q statusQueue) { changed(q, e.Object) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q statusQueue) {
			if e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion() {
				changed(q, e.ObjectNew)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q statusQueue) { changed(q, e.Object) },
	}
}

func priorityOf(initial bool) int {
	if initial {
		return priorityLow
	}
	return 0
}

func enqueue(q statusQueue, namespace string, priority int) {
	request := reconcile.Request{NamespacedName: types.NamespacedName{Name: namespace}}
	if pq, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		pq.AddWithOpts(priorityqueue.AddOpts{After: gatherTime, Priority: &priority}, request)
		return
	}
	q.AddAfter(request, gatherTime)
}

func statusOf(o client.Object) any {
	if u, ok := o.(*unstructured.Unstructured); ok {
		return u.Object["status"]
	}
	return nil
}
