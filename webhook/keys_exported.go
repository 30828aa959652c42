package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
)

// export is one generation of a provider of the installation's namespace, as others may have it.
type export struct {
	uid        types.UID
	generation int64
	created    metav1.Time
	name       string
	to         []string
	keys       map[string][]string // the Secrets that it names, and what of each
	whole      v1beta1.ExportedProvider
	withheld   []byte // the entry that stands for one that is too large

	mu    sync.Mutex
	from  string // what entry was made of
	entry []byte // nil where that is more than any Secret can hold
	size  int    // of entry, or of what it would be at least
}

// exportsTo tells whether spec.exportTo names a namespace.
func exportsTo(to []string, namespace string) bool {
	return slices.Contains(to, namespace) || slices.Contains(to, v1beta1.ExportToAll)
}

// writtenTargets gives spec.exportTo also of an object that cannot be read otherwise: its host is to stay owned where it was used.
func writtenTargets(u *unstructured.Unstructured) []string {
	to, _, err := unstructured.NestedStringSlice(u.Object, "spec", "exportTo")
	if err != nil {
		return nil // then it is nobody's
	}
	return to
}

// exportedTo gives the providers that are exported to a namespace, the oldest first.
func (k *keeper) exportedTo(ctx context.Context, namespace string) ([]*export, error) {
	k.exportsLock.Lock()
	defer k.exportsLock.Unlock()
	list, err := listKind(ctx, k.cached, statusKinds[0], k.namespace)
	if err != nil {
		return nil, err
	}
	all := make(map[types.UID]*export, len(list.Items))
	var found []*export
	for i := range list.Items {
		u := &list.Items[i]
		e := k.exports[u.GetUID()]
		if e == nil || e.generation != u.GetGeneration() {
			var err error
			if e, err = newExported(u); err != nil {
				return nil, err
			}
		}
		all[e.uid] = e
		if exportsTo(e.to, namespace) {
			found = append(found, e)
		}
	}
	k.exports = all
	slices.SortFunc(found, func(a, b *export) int {
		return cmp.Or(a.created.Compare(b.created.Time), cmp.Compare(a.name, b.name))
	})
	return found, nil
}

func newExported(u *unstructured.Unstructured) (*export, error) {
	e := &export{uid: u.GetUID(), generation: u.GetGeneration(), created: u.GetCreationTimestamp(), name: u.GetName(), to: writtenTargets(u), keys: map[string][]string{}}
	if len(e.to) == 0 {
		return e, nil
	}
	for secret, keys := range namedKeys(newObject(u).content.Providers) {
		if !isReserved(u.GetNamespace(), secret) {
			e.keys[secret] = slices.Sorted(maps.Keys(keys))
		}
	}
	metadata := map[string]any{"name": e.name, "namespace": u.GetNamespace(), "uid": e.uid, "creationTimestamp": e.created}
	text := func(spec any) (json.RawMessage, error) {
		return json.Marshal(map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind(), "metadata": metadata, "spec": spec})
	}
	host, _, _ := unstructured.NestedString(u.Object, "spec", "host")
	little, err := text(map[string]any{"host": host})
	if err == nil {
		e.withheld, err = json.Marshal(v1beta1.ExportedProvider{Provider: little, Withheld: true})
	}
	if err == nil {
		e.whole.Provider, err = text(u.Object["spec"])
	}
	if err != nil {
		return nil, fmt.Errorf("LLMProvider %s cannot be exported: %w", e.name, err)
	}
	return e, nil
}

// exportedSources tells what the entry of an exported provider is made of. Nothing is read for it.
func (k *keeper) exportedSources(ctx context.Context, e *export) (string, error) {
	var from strings.Builder
	fmt.Fprintf(&from, "%s %d", e.uid, e.generation)
	for _, secret := range slices.Sorted(maps.Keys(e.keys)) {
		head, err := k.head(ctx, types.NamespacedName{Namespace: k.namespace, Name: secret})
		if err != nil {
			return "", err
		}
		if head != nil {
			fmt.Fprintf(&from, " %s %s %s", secret, head.UID, head.ResourceVersion)
		}
	}
	return from.String(), nil
}

// exportedEntry gives the entry of an exported provider, nil where it is too large for any Secret, and its size. It is made once for
// all namespaces: of five hundred that have a provider, one reads its changed Secret.
func (k *keeper) exportedEntry(ctx context.Context, e *export, from string) ([]byte, int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.from == from {
		return e.entry, e.size, nil
	}
	whole, size := e.whole, len(e.whole.Provider)
	whole.Secrets = map[string]map[string][]byte{}
	for _, secret := range slices.Sorted(maps.Keys(e.keys)) {
		found, err := liveSecret(ctx, k.live, types.NamespacedName{Namespace: k.namespace, Name: secret})
		if err != nil {
			return nil, 0, err
		}
		if found == nil || found.Type == corev1.SecretTypeServiceAccountToken {
			continue
		}
		values := map[string][]byte{}
		for _, key := range e.keys[secret] {
			if value, ok := found.Data[key]; ok {
				values[key] = value
				size += len(value)
			}
		}
		whole.Secrets[secret] = values
		if size > corev1.MaxSecretSize { // what is counted only need not be kept
			whole.Secrets = map[string]map[string][]byte{}
		}
	}
	e.entry = nil
	if size <= corev1.MaxSecretSize {
		entry, err := json.Marshal(whole)
		if err != nil {
			return nil, 0, fmt.Errorf("LLMProvider %s cannot be exported: %w", e.name, err)
		}
		e.entry, size = entry, len(entry)
	}
	e.from, e.size = from, size
	return e.entry, e.size, nil
}
