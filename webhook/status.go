package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

const (
	// writesAtOnce is how many requests one namespace has under way. More would only wait for the client's limit.
	writesAtOnce = 8
	// writesPerPass bounds how long a namespace with much to write keeps others, and later changes of its own, waiting.
	writesPerPass = 500
)

// statusWriter compiles a namespace whenever something in it changes, and writes what Compile says of each object into its status.
type statusWriter struct {
	cached       client.Reader
	writer       client.SubResourceWriter
	events       events.EventRecorder
	surroundings *surroundings
	secrets      *secretKnowledge
	full         *fullSecrets
	began        time.Time
	gauge        *objectsGauge
	log          logr.Logger

	mu         sync.Mutex
	namespaces map[string]map[types.UID]*judged // what the last pass knew
	exports    map[types.UID]*judged            // the installation's providers, as they were read last
}

// pendingStatus is what is to be written of an object.
type pendingStatus struct {
	*judged
	wanted []metav1.Condition
}

// Reconcile judges the namespace that request names. The queue hands a namespace out once at a time.
func (w *statusWriter) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	namespace := request.Name
	w.mu.Lock()
	old := w.namespaces[namespace]
	w.mu.Unlock()

	known := w.surroundings.known()
	if !known && time.Since(w.began) < aroundTime { // so that nobody is told that all is well, and a moment later that something is missing
		return reconcile.Result{RequeueAfter: retryFrom}, nil
	}
	objects, err := readObjects(ctx, w.cached, namespace, old)
	if err != nil {
		return reconcile.Result{}, err
	}
	// Before the look at what is exported: what changes after it is noticed, because it is known who uses it.
	w.mu.Lock()
	if len(objects) == 0 {
		delete(w.namespaces, namespace)
	} else {
		w.namespaces[namespace] = objects
	}
	w.mu.Unlock()
	in := compileObjects(objects)
	if in.Exported, err = w.exportedTo(ctx, namespace); err != nil {
		return reconcile.Result{}, err
	}
	if in.Secrets, err = w.secrets.lookUp(ctx, namespace, in.Providers); err != nil {
		return reconcile.Result{}, err
	}
	if known {
		addTo(&in, w.surroundings.around(namespace, in.Routes))
	}
	problems := append(w.full.problems(objects), routing.Judge(in)...)
	due := w.judge(namespace, objects, problems)
	result, err := w.writeAll(ctx, namespace, due)
	if !known && err == nil && result.RequeueAfter == 0 {
		result.RequeueAfter = aroundTime
	}
	return result, err
}

// judge gives the objects whose status is to be written: those first that somebody is likely to wait for.
func (w *statusWriter) judge(namespace string, objects map[types.UID]*judged, problems []routing.Problem) []pendingStatus {
	byObject := map[routing.Ref][]routing.Problem{}
	for _, p := range problems {
		byObject[p.Object] = append(byObject[p.Object], p)
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second)) // as precise as it is kept
	var due []pendingStatus
	counts := map[objectState]int{}
	for _, j := range objects {
		wanted := conditionsFor(byObject[j.ref], j.generation)
		counts[newObjectState(j.ref.Kind, wanted)]++
		if settle(wanted, j.conditions, now) || j.rules != rulesOf(j.object) {
			due = append(due, pendingStatus{j, wanted})
		}
	}
	w.gauge.set(namespace, counts)
	rank := func(v pendingStatus) int { // an edited object before one never seen
		if meta.FindStatusCondition(v.conditions, v1beta1.ConditionAccepted) != nil {
			return 0
		}
		return 1
	}
	slices.SortFunc(due, func(a, b pendingStatus) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.created.Compare(a.created.Time), cmp.Compare(a.uid, b.uid))
	})
	return due
}

// writeAll writes as much of what is due as one pass may.
func (w *statusWriter) writeAll(ctx context.Context, namespace string, due []pendingStatus) (reconcile.Result, error) {
	if len(due) == 0 {
		return reconcile.Result{}, nil
	}
	pass := due[:min(len(due), writesPerPass)]
	var written, again atomic.Int32
	err := inParallel(len(pass), func(i int) error {
		err := w.write(ctx, pass[i])
		switch {
		case err == nil:
			written.Add(1)
		case apierrors.IsNotFound(err): // deleted meanwhile
			err = nil
		case apierrors.IsConflict(err): // changed meanwhile, and the cache will see it
			again.Add(1)
			err = nil
		}
		return err
	})
	if written.Load() > 0 {
		w.log.Info("status written", "namespace", namespace, "objects", written.Load(), "left", len(due)-len(pass))
	}
	switch {
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("the status of objects in namespace %s is not written: %w", namespace, err)
	case len(pass) < len(due):
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil
	case again.Load() > 0:
		return reconcile.Result{RequeueAfter: time.Second}, nil
	}
	return reconcile.Result{}, nil
}

// write applies our two conditions, and only these, and tells of them by an event where they are news.
func (w *statusWriter) write(ctx context.Context, v pendingStatus) error {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(v.gvk)
	u.SetNamespace(v.Namespace)
	u.SetName(v.Name)
	// What has changed meanwhile is to be judged anew, and what has the same name by now may be another object.
	u.SetResourceVersion(cmp.Or(v.written, v.ResourceVersion))
	err := setStatus(u, v, v.wanted)
	if err == nil && len(v.content.Unreadable) == 0 {
		err = w.writer.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(v1beta1.ControllerName), client.ForceOwnership)
	} else if err == nil {
		err = w.patch(ctx, u, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.ref, err)
	}
	before := v.conditions
	v.conditions, v.rules, v.written = merged(before, v.wanted), rulesOf(v.object), u.GetResourceVersion()
	for _, c := range v.wanted {
		if news(meta.FindStatusCondition(before, c.Type), c) {
			w.tell(v.judged, c)
		}
	}
	return nil
}

// patch writes what Apply cannot: the API server applies nothing to an object that does not fit its schema. The conditions of
// others are written back as they were.
func (w *statusWriter) patch(ctx context.Context, u *unstructured.Unstructured, v pendingStatus) error {
	if err := setStatus(u, v, merged(v.conditions, v.wanted)); err != nil {
		return err
	}
	body, err := u.MarshalJSON()
	if err != nil {
		return err
	}
	return w.writer.Patch(ctx, u, client.RawPatch(types.MergePatchType, body), client.FieldOwner(v1beta1.ControllerName))
}

// merged gives the conditions that were there with ours in their place.
func merged(there, ours []metav1.Condition) []metav1.Condition {
	others := slices.DeleteFunc(slices.Clone(there), func(c metav1.Condition) bool { return meta.FindStatusCondition(ours, c.Type) != nil })
	return append(others, ours...)
}

func setStatus(u *unstructured.Unstructured, v pendingStatus, conditions []metav1.Condition) error {
	list := make([]any, len(conditions))
	for i := range conditions {
		c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&conditions[i])
		if err != nil {
			return err
		}
		list[i] = c
	}
	status := map[string]any{"conditions": list}
	if rules := rulesOf(v.object); rules != "" || v.rules != "" {
		status["rules"] = rules
	}
	u.Object["status"] = status
	return nil
}

func (w *statusWriter) tell(j *judged, c metav1.Condition) {
	kind := corev1.EventTypeNormal
	if c.Status == metav1.ConditionFalse {
		kind = corev1.EventTypeWarning
	}
	regarding := &corev1.ObjectReference{
		APIVersion: j.gvk.GroupVersion().String(), Kind: j.gvk.Kind, Namespace: j.Namespace, Name: j.Name, UID: j.uid,
	}
	w.events.Eventf(regarding, nil, kind, c.Reason, "Judge", "%s", joinedNote(c.Message))
}

// inParallel calls f for 0 to n-1, some at once, and gives the errors of all.
func inParallel(n int, f func(int) error) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	failed := make([]error, n)
	for range min(n, writesAtOnce) {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				failed[i] = f(int(i))
			}
		})
	}
	wait.Wait()
	return errors.Join(failed...)
}
