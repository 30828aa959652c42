package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// gatewaysIn gives the gateways that run in a namespace, as its annotation has them. What is no label is left out.
func gatewaysIn(ns metav1.Object) (all []routing.Workload) {
	written, ok := ns.GetAnnotations()[v1beta1.GatewayLabels]
	if !ok {
		return nil
	}
	for text := range strings.SplitSeq(written, ";") {
		if of, err := labels.ConvertSelectorToLabelsMap(text); err == nil && len(of) > 0 {
			all = append(all, routing.Workload{Namespace: ns.GetName(), Labels: of, Gateway: true})
		}
	}
	return all
}

// selectedBy tells whether an Istio Gateway is executed by a gateway.
func selectedBy(g *istio.Gateway, w *routing.Workload) bool {
	for name, value := range g.Spec.Selector {
		if have, ok := w.Labels[name]; !ok || have != value {
			return false
		}
	}
	return true
}

// The keys that a certificate and its authorities have in a Secret. Nothing else of a Secret is ever taken for what Istio's objects name.
var (
	pair        = []string{"tls.crt", "tls.key", "cert", "key", "ca.crt", "cacert"}
	authorities = pair[4:]
)

// credentials gives the Secrets that Istio Gateways and DestinationRules name in the namespace of the gateways that execute them, with
// the keys of what is taken of them.
func credentials(of *routing.Objects) map[string][]string {
	named := map[string][]string{}
	for i := range of.Gateways {
		nameServing(named, &of.Gateways[i])
	}
	for i := range of.DestinationRules {
		nameCalling(named, &of.DestinationRules[i])
	}
	delete(named, "")
	delete(named, "-cacert")
	return named
}

// nameCalling adds those by which servers are called.
func nameCalling(named map[string][]string, rule *istio.DestinationRule) {
	policies := []*istio.TrafficPolicy{rule.Spec.TrafficPolicy}
	for i := range rule.Spec.Subsets {
		policies = append(policies, rule.Spec.Subsets[i].TrafficPolicy)
	}
	for _, p := range policies {
		if p == nil {
			continue
		}
		all := []*istio.ClientTLS{p.TLS}
		for i := range p.PortLevelSettings {
			all = append(all, p.PortLevelSettings[i].TLS)
		}
		for _, t := range all {
			if t != nil {
				named[t.CredentialName] = pair
			}
		}
	}
}

// nameServing adds those by which clients are served.
func nameServing(named map[string][]string, g *istio.Gateway) {
	for i := range g.Spec.Servers {
		t := g.Spec.Servers[i].TLS
		if t == nil {
			continue
		}
		names := t.CredentialNames
		if t.CredentialName != "" {
			names = []string{t.CredentialName}
		}
		for _, name := range names {
			if named[name+"-cacert"] == nil {
				named[name+"-cacert"] = authorities
			}
			named[name] = pair
		}
		if name := t.CACertCredentialName; named[name] == nil {
			named[name] = authorities
		}
	}
}

// execution is what data planes make of Istio's objects, and whom they call.
type execution struct {
	servers  map[routing.ServersID]bool        // those that no EndpointSlice of Kubernetes tells apart, without ports
	problems map[routing.Ref][]routing.Problem // of each of Istio's objects that is executed, also where there is none
}

// add has what a workload executes; nil: any sidecar of the objects' namespace.
func (e *execution) add(in routing.Objects, w *routing.Workload) {
	table, problems := routing.Compile(in, w)
	for id := range table.ServersIDs() {
		if id.Port = ""; id.Subset != "" || id.Kind == routing.KindInferencePool {
			e.servers[id] = true
		}
	}
	for ref := range table.Executes() {
		if e.problems[ref] == nil {
			e.problems[ref] = []routing.Problem{}
		}
	}
	for _, p := range problems {
		if all, ok := e.problems[p.Object]; ok && !slices.Contains(all, p) {
			e.problems[p.Object] = append(all, p)
		}
	}
}

func newExecution() *execution {
	return &execution{servers: map[routing.ServersID]bool{}, problems: map[routing.Ref][]routing.Problem{}}
}

// executions know what all data planes do, as far as it depends on Istio's objects: the gateways', of all namespaces together, and the
// sidecars', by namespace.
type executions struct {
	cached       client.Reader
	surroundings *surroundings
	status       *statusWriter
	secrets      *secretKnowledge
	outdated     func(namespace string) // its EndpointSlices may have to be others

	mu       sync.Mutex
	known    bool // what gateways do
	gateways *execution
	sidecars map[string]*execution
	looked   set                    // namespaces whose sidecars are known
	took     time.Duration          // the last pass
	changed  func(namespace string) // the status of its objects may have to be another
}

// Reconcile finds out what gateways do.
func (e *executions) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if !e.surroundings.known() {
		return reconcile.Result{RequeueAfter: retryFrom}, nil
	}
	began := time.Now()
	workloads, err := e.workloads(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	now := newExecution()
	if len(workloads) > 0 {
		var in routing.Objects
		if err := e.all(ctx, &in); err != nil {
			return reconcile.Result{}, err
		}
		for i := range workloads {
			own := in
			if own.Secrets, err = e.secretsOf(ctx, &in, &workloads[i]); err != nil {
				return reconcile.Result{}, err
			}
			now.add(own, &workloads[i])
		}
	}
	e.mu.Lock()
	before, known := e.gateways, e.known
	e.gateways, e.known, e.took = now, true, time.Since(began)
	e.mu.Unlock()
	for namespace := range differing(before, now) {
		e.outdated(namespace)
	}
	if !known { // they have all waited for this
		for namespace := range e.namespaces() {
			e.outdated(namespace)
		}
	}
	return reconcile.Result{}, nil
}

// workloads gives all gateways.
func (e *executions) workloads(ctx context.Context) (all []routing.Workload, err error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(metadataOf("Namespace").GroupVersionKind())
	list.Kind += "List"
	if err := e.cached.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("the namespaces cannot be listed: %w", err)
	}
	for i := range list.Items {
		all = append(all, gatewaysIn(&list.Items[i])...)
	}
	slices.SortFunc(all, func(a, b routing.Workload) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return all, nil
}

// all gives everything that gateways look at, but for Secrets.
func (e *executions) all(ctx context.Context, in *routing.Objects) error {
	objects, err := readObjects(ctx, e.cached, "", e.status.allRead())
	if err != nil {
		return err
	}
	*in = compileObjects(objects)
	addTo(in, e.surroundings.all())
	return nil
}

// secretsOf gives those that a gateway has, as far as Compile judges them.
func (e *executions) secretsOf(ctx context.Context, in *routing.Objects, w *routing.Workload) ([]routing.Secret, error) {
	own := slices.DeleteFunc(slices.Clone(in.Providers), func(p v1beta1.LLMProvider) bool { return p.Namespace != w.Namespace })
	executed := routing.Objects{
		Gateways:         slices.DeleteFunc(slices.Clone(in.Gateways), func(g istio.Gateway) bool { return !selectedBy(&g, w) }),
		DestinationRules: slices.DeleteFunc(slices.Clone(in.DestinationRules), func(r istio.DestinationRule) bool { return r.Namespace != w.Namespace }),
	}
	return e.secrets.lookUp(ctx, w.Namespace, own, slices.Collect(maps.Keys(credentials(&executed)))...)
}

// ofSidecars finds out what the sidecars of a namespace do.
func (e *executions) ofSidecars(ctx context.Context, namespace string) (*execution, error) {
	things := e.surroundings.in(namespace)
	now := newExecution()
	if slices.ContainsFunc(things, func(t *thing) bool { return t.ref.Kind != routing.KindService && t.ref.Kind != istio.KindGateway }) {
		objects, err := readObjects(ctx, e.cached, namespace, e.status.read(namespace))
		if err != nil {
			return nil, err
		}
		in := compileObjects(objects)
		addTo(&in, things)
		now.add(in, nil)
	}
	return now, nil
}

// demands gives which servers of a namespace somebody calls that no EndpointSlice of Kubernetes tells apart.
func (e *executions) demands(ctx context.Context, namespace string) ([]routing.ServersID, error) {
	e.mu.Lock()
	known := e.known
	e.mu.Unlock()
	if !known {
		return nil, errNotSynced
	}
	now, err := e.ofSidecars(ctx, namespace)
	if err != nil {
		return nil, err
	}
	named := map[routing.ServersID]bool{}
	for id := range now.servers {
		if id.Namespace == namespace {
			named[id] = true
		}
	}
	e.mu.Lock()
	e.sidecars[namespace] = now
	e.looked.add(namespace)
	if len(now.problems)+len(now.servers) == 0 {
		delete(e.sidecars, namespace)
	}
	for id := range e.gateways.servers {
		if id.Namespace == namespace {
			named[id] = true
		}
	}
	e.mu.Unlock()
	e.changed(namespace)
	return sortedServers(named), nil
}

// problems gives those of an object of Istio's; ok is false where nobody executes it.
func (e *executions) problems(ref routing.Ref) (all []routing.Problem, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range []*execution{e.gateways, e.sidecars[ref.Namespace]} {
		if x == nil {
			continue
		}
		found, executed := x.problems[ref]
		ok = ok || executed
		for _, p := range found {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b routing.Problem) int { return cmp.Compare(a.Severity, b.Severity) })
	return all, ok
}

// lookedThrough tells whether all is known that could be executed of a namespace.
func (e *executions) lookedThrough(namespace string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known && e.looked[namespace]
}

// pause is how long changes are gathered: where it takes long to find out, that is not done all the time.
func (e *executions) pause() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return max(gatewaysGatherTime, 5*e.took)
}

// namespaces gives those that have something of Istio's or a pool.
func (e *executions) namespaces() set {
	all := set{}
	for _, t := range e.surroundings.all() {
		if t.ref.Kind != routing.KindService {
			all.add(t.Namespace)
		}
	}
	return all
}

// differing gives the namespaces of what differs.
func differing(a, b *execution) set {
	all := set{}
	for _, pair := range [][2]*execution{{a, b}, {b, a}} {
		for id := range pair[0].servers {
			if !pair[1].servers[id] {
				all.add(id.Namespace)
			}
		}
		for ref, problems := range pair[0].problems {
			if other, ok := pair[1].problems[ref]; !ok || !slices.Equal(problems, other) {
				all.add(ref.Namespace)
			}
		}
	}
	return all
}

// read gives the objects of a namespace as they were read last.
func (w *statusWriter) read(namespace string) map[types.UID]*judged {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.namespaces[namespace]
}

// allRead gives those of all namespaces.
func (w *statusWriter) allRead() map[types.UID]*judged {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[types.UID]*judged{}
	for _, objects := range w.namespaces {
		maps.Copy(all, objects)
	}
	return all
}
