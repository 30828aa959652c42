package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"remora.dev/remora/apis/v1beta1"
)

var (
	providerResource = v1beta1.GroupVersion.WithResource("llmproviders")
	routeResource    = v1beta1.GroupVersion.WithResource("llmroutes")
	crdKind          = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
)

func providers() *unstructured.Unstructured { return ofKind(v1beta1.KindLLMProvider) }
func routes() *unstructured.Unstructured    { return ofKind(v1beta1.KindLLMRoute) }

func ofKind(kind string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1beta1.GroupVersion.WithKind(kind))
	return u
}

// knownResources maps the kinds that are used to their resources, with no need to ask: a webhook that starts before its
// CustomResourceDefinitions, or while the API server is away, waits for them.
func knownResources(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	m := meta.NewDefaultRESTMapper(nil)
	add := func(kind schema.GroupVersionKind, resource, one string, scope meta.RESTScope) {
		m.AddSpecific(kind, kind.GroupVersion().WithResource(resource), kind.GroupVersion().WithResource(one), scope)
	}
	add(providers().GroupVersionKind(), providerResource.Resource, "llmprovider", meta.RESTScopeNamespace)
	add(routes().GroupVersionKind(), routeResource.Resource, "llmroute", meta.RESTScopeNamespace)
	add(crdKind, "customresourcedefinitions", "customresourcedefinition", meta.RESTScopeRoot)
	return m, nil
}

// toObject keeps of an object of the API server what judging needs. It may be called again with what it gave.
func toObject(from any) (any, error) {
	if u, ok := from.(*unstructured.Unstructured); ok {
		return newObject(u), nil
	}
	return from, nil
}

// store holds all objects of the two kinds. It is read without copying.
type store struct {
	informers []toolscache.SharedIndexInformer // of providers, and of routes
}

// What objects are found by, beside their namespace.
const (
	byTarget  = "target"  // exported providers, by the namespaces that they are exported to
	byHost    = "host"    // providers, by namespace/host
	byBackend = "backend" // routes, by the hosts of their backends
)

// indexed makes an index of what an object has.
func indexed(keys func(*object) []string) toolscache.IndexFunc {
	return func(in any) ([]string, error) {
		o, ok := in.(*object)
		if !ok {
			return nil, fmt.Errorf("%T is not an object", in)
		}
		return keys(o), nil
	}
}

var indexers = []toolscache.Indexers{
	{byTarget: indexed(exportTargets), byHost: indexed(func(o *object) []string { return []string{o.Namespace + "/" + o.host} })},
	{byBackend: indexed(func(o *object) []string { return o.backends })},
}

// newStore makes a store on a cache that has toObject as its transform, and is not started yet.
func newStore(c cache.Cache) (*store, error) {
	s := &store{}
	for i, kind := range []*unstructured.Unstructured{providers(), routes()} {
		informer, err := c.GetInformer(context.Background(), kind, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, err
		}
		shared, ok := informer.(toolscache.SharedIndexInformer)
		if !ok {
			return nil, fmt.Errorf("%T has no index", informer)
		}
		if err := shared.AddIndexers(indexers[i]); err != nil {
			return nil, err
		}
		s.informers = append(s.informers, shared)
	}
	return s, nil
}

// synced says why the store may not hold all objects yet.
func (s *store) synced() error {
	for _, i := range s.informers {
		if !i.HasSynced() {
			return errors.New("not all LLMProviders and LLMRoutes have been read yet")
		}
	}
	return nil
}

// namespace gives all objects of a namespace, and the providers that are exported to it.
func (s *store) namespace(name string) ([]*object, error) {
	if err := s.synced(); err != nil {
		return nil, err
	}
	var all []*object
	for _, i := range s.informers {
		found, err := find(i, toolscache.NamespaceIndex, name)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	for _, target := range []string{name, v1beta1.ExportToAll} {
		found, err := find(s.informers[0], byTarget, target)
		if err != nil {
			return nil, err
		}
		for _, o := range found {
			if there := exportedTo(name, o); there != nil {
				all = append(all, there)
			}
		}
	}
	return all, nil
}

// all gives the objects of all namespaces.
func (s *store) all() ([]*object, error) {
	if err := s.synced(); err != nil {
		return nil, err
	}
	var all []*object
	for _, i := range s.informers {
		for _, o := range i.GetStore().List() {
			if o, ok := o.(*object); ok {
				all = append(all, o)
			}
		}
	}
	return all, nil
}

// users gives the namespaces whose routes name a host that they have no provider for themselves.
func (s *store) users(host string) ([]string, error) {
	naming, err := find(s.informers[1], byBackend, host)
	if err != nil {
		return nil, err
	}
	seen := set{}
	for _, route := range naming {
		if seen[route.Namespace] {
			continue
		}
		own, err := find(s.informers[0], byHost, route.Namespace+"/"+host)
		if err != nil {
			return nil, err
		}
		if len(own) == 0 {
			seen.add(route.Namespace)
		}
	}
	return slices.Collect(maps.Keys(seen)), nil
}

func find(i toolscache.SharedIndexInformer, index, key string) ([]*object, error) {
	found, err := i.GetIndexer().ByIndex(index, key)
	if err != nil {
		return nil, err
	}
	all := make([]*object, len(found))
	for n, f := range found {
		o, ok := f.(*object)
		if !ok {
			return nil, fmt.Errorf("%T is not an object", f)
		}
		all[n] = o
	}
	return all, nil
}

// deniedCounter gives the metric of what was denied.
func deniedCounter() (*prometheus.CounterVec, error) {
	return counter("remora_admission_denials_total", "Reasons for which LLMProviders and LLMRoutes were refused, by kind and code.", "kind", "code")
}

// counter gives the metric of that name. All servers of a process count into one.
func counter(name, help string, labels ...string) (*prometheus.CounterVec, error) {
	made := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	err := metrics.Registry.Register(made)
	var before prometheus.AlreadyRegisteredError
	if errors.As(err, &before) {
		if made, ok := before.ExistingCollector.(*prometheus.CounterVec); ok {
			return made, nil
		}
	}
	return made, err
}
