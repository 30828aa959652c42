package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"remora.dev/remora/apis/v1beta1"
)

// gatewaysGatherTime is how long changes in the whole cluster are gathered until it is found out anew what gateways do.
const gatewaysGatherTime = 200 * time.Millisecond

// lateQueue is the queue of a controller that others fill, also before it has started.
type lateQueue struct {
	mu    sync.Mutex
	queue statusQueue
	early set
}

func (l *lateQueue) add(name string, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue == nil {
		l.early.add(name)
		return
	}
	l.queue.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}, after)
}

// source lets the controller start with what came before.
func (l *lateQueue) source() source.Source {
	return source.Func(func(_ context.Context, q statusQueue) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.queue = q
		for name := range l.early {
			q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
		}
		return nil
	})
}

func newLate(m manager.Manager, name string, r reconcile.Reconciler, atOnce int) (controller.Controller, *lateQueue, error) {
	sameName := true // several managers may be in one process, one after the other
	c, err := controller.New(name, m, controller.Options{
		Reconciler: r, MaxConcurrentReconciles: atOnce, SkipNameValidation: &sameName,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFrom, retryTo),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	l := &lateQueue{early: set{}}
	return c, l, c.Watch(l.source())
}

// addExecutions lets the manager find out, while it is the leader, what data planes make of Istio's objects, keep the servers that they
// call by that, and write what is to be said of the objects.
func addExecutions(m manager.Manager, s *surroundings, status *statusWriter, log logr.Logger) error {
	secrets, err := newSecretKnowledge(m.GetCache(), m.GetAPIReader())
	if err != nil {
		return err
	}
	e := &executions{cached: m.GetCache(), surroundings: s, status: status, secrets: secrets, gateways: newExecution(), sidecars: map[string]*execution{}, looked: set{}}
	w := &istioWriter{writer: m.GetClient().Status(), surroundings: s, executions: e, log: log, wrote: map[types.UID]wroteConditions{}}
	_, conditions, err := newLate(m, "istio", w, namespacesAtOnce)
	if err != nil {
		return err
	}
	e.changed = func(namespace string) { conditions.add(namespace, 0) }
	if e.outdated, err = addServerKeeper(m, s, e.demands, log); err != nil {
		return err
	}
	c, passes, err := newLate(m, "gateways", e, 1)
	if err != nil {
		return err
	}
	passes.add("all", 0) // there may be nothing that any event would tell of
	again := func() { passes.add("all", e.pause()) }
	failed := s.follow(func(before, after *thing) {
		switch {
		case after == nil:
			w.forget(before)
		case before != nil && after.Generation != 0 && before.Generation == after.Generation:
			if !reflect.DeepEqual(before.conditions, after.conditions) {
				conditions.add(after.Namespace, gatherTime)
			}
			return
		}
		again()
	})
	changed := func(client.Object) { again() }
	failed = errors.Join(failed,
		c.Watch(source.Kind(m.GetCache(), client.Object(providers()), changesOfSpec(changed))),
		c.Watch(source.Kind(m.GetCache(), client.Object(routes()), changesOfSpec(changed))),
		c.Watch(source.Kind(m.GetCache(), client.Object(metadataOf("Namespace")), changesOfSpec(changed))),
		c.Watch(source.Kind(m.GetCache(), client.Object(secretMetadata()), changesOfSpec(func(o client.Object) {
			if secrets.names(o.GetNamespace(), o.GetName()) {
				again()
			}
		}))),
	)
	if failed != nil {
		return fmt.Errorf("the watches for gateways: %w", failed)
	}
	return nil
}

// changesOfSpec calls changed for what comes, goes or becomes another, but for its status where that can be told.
func changesOfSpec(changed func(client.Object)) handler.Funcs {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ statusQueue) { changed(e.Object) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ statusQueue) {
			before, after := e.ObjectOld, e.ObjectNew
			statusOnly := after.GetGeneration() != 0 && before.GetGeneration() == after.GetGeneration() && before.GetUID() == after.GetUID()
			sameMarks := after.GetObjectKind().GroupVersionKind().Kind == "Namespace" &&
				before.GetAnnotations()[v1beta1.GatewayLabels] == after.GetAnnotations()[v1beta1.GatewayLabels]
			if before.GetResourceVersion() != after.GetResourceVersion() && !statusOnly && !sameMarks {
				changed(after)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ statusQueue) { changed(e.Object) },
	}
}
