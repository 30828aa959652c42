package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/injector"
	"remora.dev/remora/sidecar/routing"
)

// namespaces knows the labels of all namespaces, nearly at once, and can ask for those of one as they are.
type namespaces struct {
	client   metadata.Interface
	informer cache.SharedIndexInformer
	log      logr.Logger

	mu         sync.Mutex
	watchError error
}

func newNamespaces(config *rest.Config, log logr.Logger) (*namespaces, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // what is asked for a pod cannot wait; the API server bounds it where it has to
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	n := &namespaces{client: client, log: log}
	resource := corev1.SchemeGroupVersion.WithResource("namespaces")
	n.informer = metadatainformer.NewFilteredMetadataInformer(client, resource, "", 0, cache.Indexers{}, nil).Informer()
	err = errors.Join(
		n.informer.SetTransform(toLabels),
		n.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
			n.mu.Lock()
			n.watchError = err
			n.mu.Unlock()
			cache.DefaultWatchErrorHandler(ctx, r, err)
		}),
	)
	return n, err
}

// toLabels keeps of a namespace what is asked for: others write kilobytes into annotations.
func toLabels(from any) (any, error) {
	if o, ok := from.(*metav1.PartialObjectMetadata); ok {
		kept := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: o.Name, ResourceVersion: o.ResourceVersion, Labels: o.Labels}}
		if gateways, ok := o.Annotations[v1beta1.GatewayLabels]; ok {
			kept.Annotations = map[string]string{v1beta1.GatewayLabels: gateways}
		}
		return kept, nil
	}
	return from, nil
}

// NeedLeaderElection says that every replica knows them.
func (n *namespaces) NeedLeaderElection() bool { return false }

// Start follows them until ctx ends, which is no error.
func (n *namespaces) Start(ctx context.Context) error {
	n.informer.RunWithContext(logr.NewContext(ctx, n.log))
	return nil
}

// ready says why they are not all known yet.
func (n *namespaces) ready(*http.Request) error {
	if n.informer.HasSynced() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watchError != nil {
		return fmt.Errorf("they cannot be read: %w", n.watchError)
	}
	return errors.New("not all of them have been read yet")
}

// gateways gives the gateways of all namespaces.
func (n *namespaces) gateways() (all []routing.Workload) {
	for _, o := range n.informer.GetStore().List() {
		if o, ok := o.(*metav1.PartialObjectMetadata); ok {
			all = append(all, gatewaysIn(o)...)
		}
	}
	return all
}

// known gives a namespace as it was a moment ago; ok is false where nothing is known of it.
func (n *namespaces) known(name string) (ns injector.Namespace, ok bool) {
	object, found, err := n.informer.GetStore().GetByKey(name)
	if err != nil || !found {
		return injector.Namespace{}, false
	}
	o, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return injector.Namespace{}, false
	}
	return injector.Namespace{Name: name, Labels: o.Labels}, true
}

// live asks the API server for a namespace.
func (n *namespaces) live(ctx context.Context, name string) (injector.Namespace, error) {
	// Anybody may reach this server, and what is not a name would become another path.
	if why := validation.IsDNS1123Label(name); len(why) > 0 {
		return injector.Namespace{}, fmt.Errorf("%q is not the name of a namespace: %s", name, why[0])
	}
	o, err := n.client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return injector.Namespace{}, fmt.Errorf("the labels of the namespace %s cannot be read: %w", name, err)
	}
	return injector.Namespace{Name: name, Labels: o.Labels}, nil
}
