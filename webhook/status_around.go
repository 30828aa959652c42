package main

import (
	"slices"
	"time"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// aroundTime is how long a controller that has just started waits for what objects name beside Secrets. After that it judges without.
const aroundTime = 10 * time.Second

// around gives what the objects of a namespace may name: what is in it, all Istio Gateways, and the Services of the namespaces that its
// routes name.
func (s *surroundings) around(namespace string, routes []v1beta1.LLMRoute) []*thing {
	all := s.in(namespace)
	for _, f := range s.followers {
		if f.kind != istio.KindGateway {
			continue
		}
		for _, o := range f.informer.GetStore().List() {
			if t := thingOf(o); t.Namespace != namespace {
				all = append(all, t)
			}
		}
	}
	named := set{}
	for i := range routes {
		for j := range routes[i].Spec.Rules {
			for _, b := range routes[i].Spec.Rules[j].BackendRefs {
				if ref := b.BackendRef; ref != nil && ref.Namespace != "" && ref.Namespace != namespace {
					named.add(ref.Namespace)
				}
			}
		}
	}
	for other := range named {
		all = slices.AppendSeq(all, func(yield func(*thing) bool) {
			for _, t := range s.in(other) {
				if t.ref.Kind != istio.KindGateway && !yield(t) {
					return
				}
			}
		})
	}
	return all
}

// with gives what objects of a namespace may name, those of a candidate too; nil where it is not known.
func (s *surroundings) with(namespace string, objects []*object, candidate *object) *routing.Objects {
	if s == nil || !s.known() {
		return nil
	}
	var routes []v1beta1.LLMRoute
	for _, o := range append(slices.Clip(objects), candidate) {
		if o != nil && o.isRoute() {
			routes = append(routes, o.content.Routes[0])
		}
	}
	in := &routing.Objects{}
	addTo(in, s.around(namespace, routes))
	return in
}

// followSurroundings has namespaces judged again whose objects may name what has changed.
func (w *statusWriter) followSurroundings(q statusQueue) error {
	return w.surroundings.follow(func(before, after *thing) {
		switch {
		case after == nil:
			after = before
		case before != nil && after.Generation != 0 && before.Generation == after.Generation && before.UID == after.UID:
			return // it is the status
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for namespace, objects := range w.namespaces {
			if namespace == after.Namespace || after.ref.Kind == istio.KindGateway || namesNamespace(objects, after.Namespace) {
				enqueue(q, namespace, priorityLow)
			}
		}
	})
}

// namesNamespace tells whether a route names a backend of that namespace.
func namesNamespace[K comparable](objects map[K]*judged, namespace string) bool {
	for _, j := range objects {
		for i := range j.content.Routes {
			for k := range j.content.Routes[i].Spec.Rules {
				for _, b := range j.content.Routes[i].Spec.Rules[k].BackendRefs {
					if b.BackendRef != nil && b.BackendRef.Namespace == namespace {
						return true
					}
				}
			}
		}
	}
	return false
}
