package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// statusKinds are the kinds that have a status to write.
var statusKinds = []schema.GroupVersionKind{
	v1beta1.GroupVersion.WithKind(v1beta1.KindLLMProvider),
	v1beta1.GroupVersion.WithKind(v1beta1.KindLLMRoute),
}

// judged is an object whose status is kept.
type judged struct {
	*object
	gvk        schema.GroupVersionKind
	uid        types.UID
	generation int64
	created    metav1.Time
	conditions []metav1.Condition // its latest known ones
	rules      string             // what its status says of them
	written    string             // the version that our last write made, as long as the cache has not seen it
}

// keepLittle leaves out of cached objects what nobody here looks at. Annotations may hold keys: kubectl keeps what it applied there.
func keepLittle(in any) (any, error) {
	o, ok := in.(metav1.Object)
	if !ok {
		return in, nil // the mark of a deleted object
	}
	o.SetManagedFields(nil)
	o.SetAnnotations(nil)
	o.SetLabels(nil)
	o.SetOwnerReferences(nil)
	o.SetFinalizers(nil)
	return in, nil
}

// readObjects gives the objects of a namespace as they are in the cache. What is in old and has not changed is used again.
func readObjects(ctx context.Context, cached client.Reader, namespace string, old map[types.UID]*judged) (map[types.UID]*judged, error) {
	all := map[types.UID]*judged{}
	for _, gvk := range statusKinds {
		of, err := readKind(ctx, cached, gvk, namespace, old)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, of)
	}
	return all, nil
}

// listKind gives the objects of one kind as the cache has them, without a copy: they are only to be read.
func listKind(ctx context.Context, cached client.Reader, gvk schema.GroupVersionKind, namespace string) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	if err := cached.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("the %ss of namespace %s cannot be listed: %w", gvk.Kind, namespace, err)
	}
	return list, nil
}

// readKind gives those of one kind.
func readKind(ctx context.Context, cached client.Reader, gvk schema.GroupVersionKind, namespace string, old map[types.UID]*judged) (map[types.UID]*judged, error) {
	list, err := listKind(ctx, cached, gvk, namespace)
	if err != nil {
		return nil, err
	}
	all := map[types.UID]*judged{}
	for i := range list.Items {
		u := &list.Items[i]
		all[u.GetUID()] = newJudged(u, gvk, old[u.GetUID()])
	}
	return all, nil
}

func newJudged(u *unstructured.Unstructured, gvk schema.GroupVersionKind, old *judged) *judged {
	if old != nil && old.ResourceVersion == u.GetResourceVersion() {
		return old
	}
	j := &judged{gvk: gvk, uid: u.GetUID(), generation: u.GetGeneration(), created: u.GetCreationTimestamp()}
	if old != nil && old.generation == j.generation {
		o := *old.object // the spec is the same
		o.ResourceVersion = u.GetResourceVersion()
		j.object = &o
	} else {
		j.object = newObject(u)
	}
	if old != nil && old.written != "" && older(u.GetResourceVersion(), old.written) {
		// The cache has not seen our own write yet. What it shows would be written a second time, with another time.
		j.conditions, j.rules, j.written = old.conditions, old.rules, old.written
		return j
	}
	var status v1beta1.Status
	if fields, ok := u.Object["status"].(map[string]any); ok {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &status); err != nil {
			status = v1beta1.Status{} // another schema's: it is written anew
		}
	}
	j.conditions, j.rules = status.Conditions, status.Rules
	return j
}

// maxRules bounds the rules in a status: what a line of kubectl get has room for.
const maxRules = 100

// rulesOf gives the rules of a route in order, by name or else by number.
func rulesOf(o *object) string {
	if !o.isRoute() {
		return ""
	}
	var names []string
	for i, r := range o.content.Routes[0].Spec.Rules {
		names = append(names, cmp.Or(plain(r.Name), strconv.Itoa(i+1)))
	}
	return clipped(strings.Join(names, ", "), maxRules)
}

// older tells whether a version of an object is older than another one.
func older(version, than string) bool {
	order, err := resourceversion.CompareResourceVersion(version, than)
	return err == nil && order < 0
}

// compileObjects puts objects together for Compile. The order does not matter to it.
func compileObjects(all map[types.UID]*judged) routing.Objects {
	var in routing.Objects
	for _, j := range all {
		in.Providers = append(in.Providers, j.content.Providers...)
		in.Routes = append(in.Routes, j.content.Routes...)
		in.Unreadable = append(in.Unreadable, j.content.Unreadable...)
	}
	return in
}
