package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

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
	informers []toolscache.SharedIndexInformer
}

// newStore makes a store on a cache that has toObject as its transform, and is not started yet.
func newStore(c cache.Cache) (*store, error) {
	s := &store{}
	for _, kind := range []*unstructured.Unstructured{providers(), routes()} {
		informer, err := c.GetInformer(context.Background(), kind, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, err
		}
		indexed, ok := informer.(toolscache.SharedIndexInformer)
		if !ok {
			return nil, fmt.Errorf("%T has no index", informer)
		}
		s.informers = append(s.informers, indexed)
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

func (s *store) namespace(name string) ([]*object, error) {
	if err := s.synced(); err != nil {
		return nil, err
	}
	var all []*object
	for _, i := range s.informers {
		found, err := i.GetIndexer().ByIndex(toolscache.NamespaceIndex, name)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			o, ok := f.(*object)
			if !ok {
				return nil, fmt.Errorf("%T is not an object", f)
			}
			all = append(all, o)
		}
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
