package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/sidecar/routing"
)

// absentTime is until a kind that the cluster does not have is asked for again. It may come with an installation of Istio.
const absentTime = 10 * time.Second

// surroundings are the objects of the cluster's own kinds and of Istio's that Remora's speak of, in all namespaces.
type surroundings struct {
	followers []*follower
	log       logr.Logger
}

// follower knows all objects of one kind, as thing. It waits for a kind that the cluster does not have, which then has no objects.
type follower struct {
	kind     string
	client   dynamic.Interface
	versions []schema.GroupVersionResource // the newest first
	served   atomic.Int32                  // the place in versions of the one that the API server has; -1: none
	absent   time.Duration                 // until it is asked again
	informer toolscache.SharedIndexInformer
}

// newSurroundings follows nothing before Start.
func newSurroundings(config *rest.Config, absent time.Duration, log logr.Logger) (*surroundings, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("the kinds of the cluster: %w", err)
	}
	s := &surroundings{log: log}
	add := func(kind, group, resource string, versions ...string) {
		f := &follower{kind: kind, client: client, absent: absent}
		for _, version := range versions {
			f.versions = append(f.versions, schema.GroupVersionResource{Group: group, Version: version, Resource: resource})
		}
		f.informer = toolscache.NewSharedIndexInformer(&toolscache.ListWatch{ListWithContextFunc: f.list, WatchFuncWithContext: f.watch},
			&unstructured.Unstructured{}, 0, toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc})
		if e := f.informer.SetTransform(toThing); e != nil {
			err = e
		}
		s.followers = append(s.followers, f)
	}
	add(routing.KindService, "", "services", "v1")
	add(routing.KindInferencePool, "inference.networking.k8s.io", "inferencepools", "v1")
	add(istio.KindVirtualService, istio.Group, "virtualservices", istio.Versions...)
	add(istio.KindDestinationRule, istio.Group, "destinationrules", istio.Versions...)
	add(istio.KindGateway, istio.Group, "gateways", istio.Versions...)
	return s, err
}

// list is nothing where the cluster has no such kind.
func (f *follower) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	for i, version := range f.versions {
		list, err := f.client.Resource(version).List(ctx, options)
		if apierrors.IsNotFound(err) {
			continue
		}
		f.served.Store(int32(i)) //nolint:gosec // there are three
		return list, err
	}
	f.served.Store(-1)
	return &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}, nil
}

func (f *follower) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if options.SendInitialEvents != nil { // it stands for a list
		var err error
		for i, version := range f.versions {
			var w watch.Interface
			if w, err = f.client.Resource(version).Watch(ctx, options); !apierrors.IsNotFound(err) {
				f.served.Store(int32(i)) //nolint:gosec // there are three
				return w, err
			}
		}
		return nil, err // and so it is listed
	}
	if i := f.served.Load(); i >= 0 {
		return f.client.Resource(f.versions[i]).Watch(ctx, options)
	}
	return newAbsence(f.absent), nil
}

// absence is a watch on a kind that there is not. Its only event has the kind listed again.
type absence struct {
	timer  *time.Timer
	events chan watch.Event
}

func newAbsence(after time.Duration) *absence {
	a := &absence{events: make(chan watch.Event, 1)}
	a.timer = time.AfterFunc(after, func() {
		status := apierrors.NewResourceExpired("the kind may exist by now").Status()
		a.events <- watch.Event{Type: watch.Error, Object: &status}
	})
	return a
}

func (a *absence) Stop()                          { a.timer.Stop() }
func (a *absence) ResultChan() <-chan watch.Event { return a.events }

// Start follows all kinds until ctx ends, which is no error.
func (s *surroundings) Start(ctx context.Context) error {
	for _, f := range s.followers {
		go f.informer.RunWithContext(logr.NewContext(ctx, s.log.WithValues("kind", f.kind)))
	}
	<-ctx.Done()
	return nil
}

// known tells whether everything is known.
func (s *surroundings) known() bool { return s.synced() == nil }

// synced says why not everything may be known yet.
func (s *surroundings) synced() error {
	for _, f := range s.followers {
		if !f.informer.HasSynced() {
			return fmt.Errorf("%w: not all %ss are known", errNotSynced, f.kind)
		}
	}
	return nil
}

// follow has changed called for each object that comes, changes or goes; before or after is nil then. It may be called once
// for each kind at a time.
func (s *surroundings) follow(changed func(before, after *thing)) error {
	for _, f := range s.followers {
		_, err := f.informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { changed(nil, thingOf(o)) },
			UpdateFunc: func(old, o any) {
				if before, after := thingOf(old), thingOf(o); before.ResourceVersion != after.ResourceVersion {
					changed(before, after)
				}
			},
			DeleteFunc: func(o any) { changed(thingOf(o), nil) },
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func thingOf(o any) *thing {
	if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	t, ok := o.(*thing)
	if !ok {
		panic(fmt.Sprintf("%T is not a thing", o)) // the transform makes nothing else
	}
	return t
}

// in gives the objects of a namespace.
func (s *surroundings) in(namespace string) (all []*thing) {
	for _, f := range s.followers {
		found, err := f.informer.GetIndexer().ByIndex(toolscache.NamespaceIndex, namespace)
		if err != nil {
			panic(err) // there is that index
		}
		for _, o := range found {
			all = append(all, thingOf(o))
		}
	}
	return all
}

// all gives the objects of all namespaces.
func (s *surroundings) all() (all []*thing) {
	for _, f := range s.followers {
		for _, o := range f.informer.GetStore().List() {
			all = append(all, thingOf(o))
		}
	}
	return all
}

// get gives one object; nil where there is none.
func (s *surroundings) get(ref routing.Ref) *thing {
	for _, f := range s.followers {
		if f.kind != ref.Kind {
			continue
		}
		if o, ok, err := f.informer.GetStore().GetByKey(ref.Path()); err == nil && ok {
			return thingOf(o)
		}
	}
	return nil
}

// NeedLeaderElection says that a controller that waits for its turn holds none of it.
func (s *surroundings) NeedLeaderElection() bool { return true }
