package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"remora.dev/remora/apis/v1beta1"
)

// keeper keeps, in each namespace that asks for sidecars, what they need to reach the API server and the providers: five
// objects, named in this order as they are made. A pod that comes before they are there waits for them.
type keeper struct {
	client    client.Client // writes
	live      client.Reader // the API server
	cached    client.Reader
	events    events.EventRecorder
	gauge     *accessGauge
	log       logr.Logger
	config    *rest.Config // by which this process reaches the API server: its authority is the sidecars' too
	namespace string       // of the installation
	times     accessTimes

	telemetry *telemetrySettings

	full   *fullSecrets
	around *surroundings

	mu         sync.Mutex
	namespaces map[string]*keptNamespace

	exportsLock sync.Mutex
	exports     map[types.UID]*export // providers of the installation's namespace
}

// accessTimes are those of the keeper.
type accessTimes struct {
	now func() time.Time
	// tokenLife is what tokens are asked for.
	tokenLife time.Duration
	// lookAgain is how long a namespace is left alone at most. What is due by the wall clock is found then, however long the
	// machine was suspended; where nothing is due, no request is made.
	lookAgain time.Duration
	// leave is how long a namespace that has lost its label keeps all of it, for pods that were admitted just before.
	leave time.Duration
	// leftAgain is the time until such a namespace is searched for pods again, where no pod's end was seen.
	leftAgain time.Duration
}

func usualAccessTimes(tokenLife time.Duration) accessTimes {
	return accessTimes{now: time.Now, tokenLife: tokenLife, lookAgain: 5 * time.Minute, leave: 10 * time.Second, leftAgain: time.Minute}
}

// keptNamespace is what is remembered of a namespace. Only the pass that has the namespace writes it.
type keptNamespace struct {
	keys      keptKeys
	access    keptAccess
	providers map[types.UID]namedBy
	told      map[trouble]bool

	// Under the keeper's lock:
	named   map[types.NamespacedName]bool // Secrets that providers name
	leaving time.Time                     // since when it is seen without its label; zero where it has one
}

// trouble is what keeps a namespace from having what it should, where trying again helps nothing: somebody has to act.
type trouble struct {
	code       string
	kind, name string // of the object that it is about, in the namespace
	message    string // what is wrong, and the remedy
}

// The codes of troubles, as events, log and metrics show them.
const (
	foreignObject    = "ForeignObject"
	keysTooLarge     = "KeysTooLarge"
	entryTooLong     = "EntryNameTooLong"
	reservedSecret   = "ReservedSecret"
	telemetryInvalid = "TelemetryInvalid"
	requestFailed    = "RequestFailed" // not a trouble: it is tried again
)

// Reconcile makes the namespace that request names as it should be. The queue hands a namespace out once at a time.
func (k *keeper) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	name := request.Name
	ns := metadataOf("Namespace")
	if err := k.cached.Get(ctx, types.NamespacedName{Name: name}, ns); apierrors.IsNotFound(err) {
		k.forget(name)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	if ns.DeletionTimestamp != nil { // all in it goes, and nothing can be made
		k.forget(name)
		return reconcile.Result{}, nil
	}
	n := k.remember(name)
	result, err := k.pass(ctx, ns, n)
	switch {
	case namespaceEnds(err):
		return reconcile.Result{}, nil // the cache will see that too
	case errors.Is(err, errNotSynced):
		return reconcile.Result{RequeueAfter: retryFrom}, nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err): // somebody was faster, and the cache will see that
		return reconcile.Result{RequeueAfter: retryFrom}, nil
	case err != nil:
		k.gauge.fail(name)
		return reconcile.Result{}, fmt.Errorf("what sidecars need in namespace %s: %w", name, err)
	}
	k.gauge.succeed(name)
	low := priorityLow
	result.Priority = &low // what is only due by the clock waits for what users have changed
	return result, nil
}

// namespaceEnds tells whether something failed because its namespace is going or gone.
func namespaceEnds(err error) bool {
	var status apierrors.APIStatus
	gone := errors.As(err, &status) && apierrors.IsNotFound(err) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
	return gone || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func (k *keeper) pass(ctx context.Context, ns *metav1.PartialObjectMetadata, n *keptNamespace) (reconcile.Result, error) {
	if k.asksFor(ns) {
		k.setLeaving(n, time.Time{})
		return k.keep(ctx, ns, n)
	}
	ours, err := k.ourObjects(ctx, ns.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(ours) == 0 {
		if !n.leaving.IsZero() {
			k.log.Info("a namespace asks for no sidecars, and none is left: access removed", "namespace", ns.Name)
		}
		k.forget(ns.Name)
		return reconcile.Result{}, nil
	}
	if n.leaving.IsZero() {
		k.setLeaving(n, k.times.now())
	}
	stay := k.times.leave - k.times.now().Sub(n.leaving)
	if stay <= 0 {
		used, err := k.usedByPods(ctx, ns.Name)
		if err != nil {
			return reconcile.Result{}, err
		}
		if !used {
			return reconcile.Result{}, k.remove(ctx, ours)
		}
		stay = k.times.leftAgain
	}
	result, err := k.keep(ctx, ns, n) // its pods still live on it
	result.RequeueAfter = min(result.RequeueAfter, stay)
	return result, err
}

// asksFor tells whether a namespace is to have sidecars. No webhook injects any into these two.
func (k *keeper) asksFor(ns metav1.Object) bool {
	if ns.GetName() == k.namespace || ns.GetName() == metav1.NamespaceSystem {
		return false
	}
	value := ns.GetLabels()[v1beta1.InjectLabel]
	return value == v1beta1.InjectEnabled || value == v1beta1.InjectPods
}

// keep makes what is missing and repairs what is not as it should be.
func (k *keeper) keep(ctx context.Context, ns *metav1.PartialObjectMetadata, n *keptNamespace) (reconcile.Result, error) {
	var troubles []trouble
	var failed []error
	note := func(t *trouble, err error) bool {
		if t != nil {
			troubles = append(troubles, *t)
		}
		if err != nil {
			failed = append(failed, err)
		}
		return t == nil && err == nil
	}
	var account types.UID
	for _, wanted := range identity(ns.Name) {
		have, t, err := k.ensure(ctx, wanted)
		if !note(t, err) {
			break // an account or a Role of somebody else's is not to be bound
		}
		if wanted.GetKind() == "ServiceAccount" {
			account = have.GetUID()
		}
	}
	found, err := k.keepKeys(ctx, ns, n)
	troubles = append(troubles, found...)
	if err != nil {
		failed = append(failed, err)
	}
	// Pods start once there is a token, and should find their keys then. One that is there is renewed in any case.
	if account != "" && (err == nil || n.access.version != "") {
		t, err := k.keepAccess(ctx, ns.Name, n, account)
		note(t, err)
	}
	k.tell(ns, n, troubles)
	codes := map[string]bool{}
	for _, t := range troubles {
		codes[t.code] = true
	}
	k.gauge.set(ns.Name, accessState{leaving: !n.leaving.IsZero(), codes: codes, expires: n.access.expires})
	again := k.times.lookAgain
	if !n.access.renew.IsZero() {
		again = min(again, max(n.access.renew.Sub(k.times.now()), time.Second))
	}
	if end := k.captureEnd(n.keys.telemetry); end > 0 {
		again = min(again, end)
	}
	return reconcile.Result{RequeueAfter: again}, errors.Join(failed...)
}

// tell says what is new of the troubles of a namespace.
func (k *keeper) tell(ns *metav1.PartialObjectMetadata, n *keptNamespace, troubles []trouble) {
	told := map[trouble]bool{}
	for _, t := range troubles {
		told[t] = true
		if n.told[t] {
			continue
		}
		k.log.Info("a namespace cannot have all that its sidecars need", "namespace", ns.Name, "code", t.code, "why", t.message)
		// In the namespace, and not in `default`, where those of cluster-wide objects are: those who can act read it there.
		regarding := &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: ns.Name, Name: ns.Name, UID: ns.UID}
		// Without it, all events of one code would be one.
		about := &corev1.ObjectReference{Kind: t.kind, Namespace: ns.Name, Name: t.name}
		k.events.Eventf(regarding, about, corev1.EventTypeWarning, t.code, "KeepAccess", "%s", clipped(plain(t.message), maxNote))
	}
	n.told = told
}

func (k *keeper) remember(namespace string) *keptNamespace {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.namespaces[namespace]
	if n == nil {
		n = &keptNamespace{providers: map[types.UID]namedBy{}}
		k.namespaces[namespace] = n
	}
	return n
}

func (k *keeper) forget(namespace string) {
	k.mu.Lock()
	delete(k.namespaces, namespace)
	k.mu.Unlock()
	k.full.set(namespace, k.namespace, nil)
	k.gauge.forget(namespace)
}

// users gives the namespaces whose providers name that Secret, be they their own or exported to them.
func (k *keeper) users(secret types.NamespacedName) (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if secret.Namespace != k.namespace {
		if n := k.namespaces[secret.Namespace]; n != nil && n.named[secret] {
			all = append(all, secret.Namespace)
		}
		return all
	}
	for name, n := range k.namespaces {
		if n.named[secret] {
			all = append(all, name)
		}
	}
	return all
}

func (k *keeper) setLeaving(n *keptNamespace, since time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n.leaving = since
}

// leaves tells whether a namespace has lost its label and still has what is ours.
func (k *keeper) leaves(namespace string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.namespaces[namespace]
	return n != nil && !n.leaving.IsZero()
}

// kept gives the namespaces that have, or are to have, something of ours.
func (k *keeper) kept() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]string, 0, len(k.namespaces))
	for name := range k.namespaces {
		all = append(all, name)
	}
	return all
}

// current tells whether what was remembered of an object is still so, by what the cache shows of it. A cache that has not seen our
// own write yet shows an older version.
func current(remembered string, head *metav1.PartialObjectMetadata) bool {
	return remembered != "" && head != nil && (head.ResourceVersion == remembered || older(head.ResourceVersion, remembered))
}
