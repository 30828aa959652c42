package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// rewriteTime is until conditions are written again that somebody has taken away: whoever writes the whole of a status would otherwise be
// in a race with this.
const rewriteTime = time.Minute

// istioWriter writes what data planes make of Istio's objects into their status: as two conditions under Remora's name, beside those of
// others. Objects that no data plane of Remora's executes have none of them.
type istioWriter struct {
	writer       client.SubResourceWriter
	surroundings *surroundings
	executions   *executions
	log          logr.Logger

	mu    sync.Mutex
	wrote map[types.UID]wroteConditions
}

// wroteConditions are the last that were written of an object.
type wroteConditions struct {
	at   time.Time
	text string
}

// Reconcile judges Istio's objects of the namespace that request names.
func (w *istioWriter) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if !w.executions.lookedThrough(request.Name) {
		return reconcile.Result{}, nil // it comes again when that is done
	}
	var all []*thing
	for _, t := range w.surroundings.in(request.Name) {
		switch t.ref.Kind {
		case istio.KindVirtualService, istio.KindDestinationRule, istio.KindGateway:
			all = append(all, t)
		}
	}
	var mu sync.Mutex
	again := time.Duration(0)
	err := inParallel(len(all), func(i int) error {
		wait, err := w.write(ctx, all[i])
		mu.Lock()
		defer mu.Unlock()
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
		return err
	})
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("the status of Istio's objects in namespace %s is not written: %w", request.Name, err)
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// write brings our conditions of an object up to date. It gives how long to wait until that is tried again; 0: it is done.
func (w *istioWriter) write(ctx context.Context, t *thing) (time.Duration, error) {
	problems, executed := w.executions.problems(t.ref)
	others, there := splitConditions(t.conditions)
	var wanted []metav1.Condition
	if executed {
		wanted = conditionsFor(problems, t.Generation)
		for i := range wanted {
			wanted[i].Type = istioCondition(wanted[i].Type)
		}
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	if !settle(wanted, there, now) && len(there) == len(wanted) {
		return 0, nil
	}
	text := fmt.Sprint(t.Generation, len(wanted))
	for _, c := range wanted {
		text += fmt.Sprintf(" %s %s %s %s", c.Type, c.Status, c.Reason, c.Message)
	}
	w.mu.Lock()
	last := w.wrote[t.UID]
	w.mu.Unlock()
	if wait := rewriteTime - time.Since(last.at); last.text == text && wait > 0 {
		return wait, nil // the cache is behind, or somebody else writes over it
	}
	conditions := others
	for i := range wanted {
		c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&wanted[i])
		if err != nil {
			return 0, err
		}
		conditions = append(conditions, c)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": t.ResourceVersion}, "status": map[string]any{"conditions": conditions},
	})
	if err != nil {
		return 0, err
	}
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(t.apiVersion)
	u.SetKind(t.ref.Kind)
	u.SetNamespace(t.Namespace)
	u.SetName(t.Name)
	err = w.writer.Patch(ctx, u, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(v1beta1.ControllerName))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err): // the cache will see it
		return retryFrom, nil
	case err != nil:
		return 0, fmt.Errorf("%s: %w", t.ref, err)
	}
	w.mu.Lock()
	w.wrote[t.UID] = wroteConditions{time.Now(), text}
	w.mu.Unlock()
	return 0, nil
}

// forget drops what is remembered of an object that is gone.
func (w *istioWriter) forget(t *thing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wrote, t.UID)
}

func istioCondition(kind string) string { return "remora.dev/" + kind }

// splitConditions gives the conditions of others as they are written, and ours.
func splitConditions(all []any) (others []any, ours []metav1.Condition) {
	others = []any{}
	for _, o := range all {
		fields, ok := o.(map[string]any)
		kind, _ := fields["type"].(string)
		if !ok || kind != istioCondition(v1beta1.ConditionAccepted) && kind != istioCondition(v1beta1.ConditionResolvedRefs) {
			others = append(others, o)
			continue
		}
		var c metav1.Condition
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &c); err == nil {
			ours = append(ours, c)
		} else {
			ours = append(ours, metav1.Condition{Type: kind}) // it is written anew
		}
	}
	return others, ours
}
