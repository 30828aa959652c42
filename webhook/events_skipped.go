package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"remora.dev/remora/apis/v1beta1"
)

// skipNewsTime is how old a pod may be that is told of. API servers keep events for an hour: as long as that one is there, its name
// keeps another one from being made, and later the pod is too old.
const skipNewsTime = 30 * time.Minute

// skipTeller makes an event for each pod that asked for no sidecar itself and could not get the one that its namespace wants for it.
// The webhook that decides so has no right to: it promises to have no side effects.
type skipTeller struct {
	client client.Client
	cached client.Reader
	log    logr.Logger
	now    func() time.Time
}

// addSkipTeller lets the manager tell of skipped pods while it is the leader.
func addSkipTeller(m manager.Manager, log logr.Logger) error {
	t := &skipTeller{client: m.GetClient(), cached: m.GetCache(), log: log, now: time.Now}
	sameName := true // several managers may be in one process, one after the other
	c, err := controller.New("skipped", m, controller.Options{Reconciler: t, SkipNameValidation: &sameName})
	if err != nil {
		return fmt.Errorf("the teller of skipped pods: %w", err)
	}
	skipped := predicate.TypedFuncs[client.Object]{
		CreateFunc: func(e event.CreateEvent) bool { return skipReason(e.Object) != "" },
		UpdateFunc: func(e event.UpdateEvent) bool { return skipReason(e.ObjectOld) == "" && skipReason(e.ObjectNew) != "" },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	var h handler.EventHandler = &handler.EnqueueRequestForObject{}
	if err := c.Watch(source.Kind(m.GetCache(), client.Object(metadataOf("Pod")), h, predicate.TypedPredicate[client.Object](skipped))); err != nil {
		return fmt.Errorf("the watch on pods: %w", err)
	}
	return nil
}

// skipReason says why a pod was skipped; empty where it was not.
func skipReason(o client.Object) string {
	if o.GetLabels()[v1beta1.InjectedLabel] != strconv.FormatBool(false) {
		return ""
	}
	return o.GetAnnotations()[v1beta1.SkipReason]
}

// Reconcile tells of the pod that request names.
func (t *skipTeller) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	pod := metadataOf("Pod")
	if err := t.cached.Get(ctx, request.NamespacedName, pod); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	now := t.now()
	reason := skipReason(pod)
	if reason == "" || now.Sub(pod.CreationTimestamp.Time) > skipNewsTime {
		return reconcile.Result{}, nil
	}
	err := t.client.Create(ctx, &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: pod.Namespace, Name: "remora-skipped-" + string(pod.UID)},
		EventTime:           metav1.NewMicroTime(now),
		ReportingController: v1beta1.ControllerName,
		ReportingInstance:   v1beta1.ControllerName, // whichever replica: it is told once
		Action:              "Inject",
		Reason:              "NotInjected",
		Regarding:           corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Note:                clipped(plain(reason), maxNote),
		Type:                corev1.EventTypeWarning,
	})
	switch {
	case apierrors.IsAlreadyExists(err), namespaceEnds(err):
		return reconcile.Result{}, nil // told already, or nobody is left to read it
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("that pod %s was skipped cannot be told: %w", request, err)
	}
	t.log.Info("pod skipped", "namespace", pod.Namespace, "pod", pod.Name, "why", plain(reason))
	return reconcile.Result{}, nil
}
