package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
)

// keptKeys is what is known of the keys Secret of a namespace at one version: what it was made of, and not what is in it.
type keptKeys struct {
	version     string
	authorities string
	from        map[string]string // Secret → what was taken of which version of it
	troubles    []trouble
	stale       bool // it holds what it held before, and not what it should
}

// namedBy is what one generation of a provider names: Secrets and their keys.
type namedBy struct {
	generation int64
	keys       map[string][]string
}

// keepKeys sees to the Secret that holds what the sidecars of a namespace may use of other Secrets.
func (k *keeper) keepKeys(ctx context.Context, namespace string, n *keptNamespace) ([]trouble, error) {
	named, troubles, err := k.namedKeys(ctx, namespace, n)
	if err != nil {
		return troubles, err
	}
	authorities, err := k.trustedCAs(ctx)
	if err != nil {
		return troubles, err
	}
	from, err := k.sources(ctx, namespace, named)
	if err != nil {
		return troubles, err
	}
	id := types.NamespacedName{Namespace: namespace, Name: v1beta1.KeysSecret}
	head, err := k.head(ctx, id)
	if err != nil {
		return troubles, err
	}
	if current(n.keys.version, head) && isOurs(head) && maps.Equal(n.keys.from, from) && n.keys.authorities == authorities {
		return append(troubles, n.keys.troubles...), nil
	}
	secret, err := liveSecret(ctx, k.live, id)
	if err != nil {
		return troubles, err
	}
	if secret != nil && !isOurs(secret) {
		n.keys = keptKeys{}
		return append(troubles, *foreign("Secret", id)), nil
	}
	var before map[string][]byte
	if secret != nil && secret.ResourceVersion == n.keys.version && !n.keys.stale {
		before = secret.Data
	}
	data, found, err := k.collect(ctx, namespace, named, from, n.keys.from, before)
	if err != nil {
		return troubles, err
	}
	if authorities != "" {
		data[v1beta1.TrustedCAEntry] = []byte(authorities)
	}
	large := tooLarge(data)
	if large != nil {
		found, data = append(found, *large), nil
	}
	troubles = append(troubles, found...)
	if secret, err = k.secret(ctx, id, secret, data); err != nil {
		return troubles, err
	}
	version := secret.ResourceVersion
	if large == nil {
		if version, err = k.writeSecret(ctx, secret, data); err != nil {
			return troubles, err
		}
	}
	n.keys = keptKeys{version: version, authorities: authorities, from: from, troubles: found, stale: large != nil}
	return troubles, nil
}

// tooLarge tells of a content that no Secret can have. It is not cut: which keys should not work is nobody's to guess.
func tooLarge(data map[string][]byte) *trouble {
	size := 0
	for _, value := range data {
		size += len(value) // as the API server counts
	}
	if size <= corev1.MaxSecretSize {
		return nil
	}
	return &trouble{keysTooLarge, "Secret", v1beta1.KeysSecret, fmt.Sprintf("what the LLMProviders of the namespace name of Secrets, and the trusted CAs, are %d KiB in all, "+
		"more than the %d KiB that Secret %s can hold, which stays as it was: changed and revoked keys do not reach sidecars. Remedy: remove providers, or large values from the "+
		"Secrets that they name, or divide them among namespaces", (size+1023)/1024, corev1.MaxSecretSize/1024, v1beta1.KeysSecret)}
}

// namedKeys gives what the providers of a namespace name. Changes of these Secrets are noticed from here on.
func (k *keeper) namedKeys(ctx context.Context, namespace string, n *keptNamespace) (map[string][]string, []trouble, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(v1beta1.GroupVersion.WithKind(v1beta1.KindLLMProvider + "List"))
	if err := k.cached.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("its LLMProviders cannot be listed: %w", err)
	}
	var troubles []trouble
	providers, named := map[types.UID]namedBy{}, map[string]map[string]bool{}
	for i := range list.Items {
		u := &list.Items[i]
		by, ok := n.providers[u.GetUID()]
		if !ok || by.generation != u.GetGeneration() {
			by = namedBy{u.GetGeneration(), map[string][]string{}}
			for secret, keys := range namedKeys(newObject(u).content.Providers) {
				by.keys[secret] = slices.Sorted(maps.Keys(keys))
			}
		}
		providers[u.GetUID()] = by
		for secret, keys := range by.keys {
			if isReserved(secret) {
				troubles = append(troubles, trouble{reservedSecret, v1beta1.KindLLMProvider, u.GetName(), fmt.Sprintf("LLMProvider %s names Secret %s, which is the controller's own and holds no key of a provider: "+
					"name a Secret of your own", u.GetName(), secret)})
				continue
			}
			if named[secret] == nil {
				named[secret] = map[string]bool{}
			}
			for _, key := range keys {
				named[secret][key] = true
			}
		}
	}
	all := make(map[string][]string, len(named))
	for secret, keys := range named {
		all[secret] = slices.Sorted(maps.Keys(keys))
	}
	n.providers = providers
	k.mu.Lock()
	n.named = all
	k.mu.Unlock()
	return all, troubles, nil
}

// sources tells, of each Secret that is named and exists, which version of it there is and what of it is named. None is read.
func (k *keeper) sources(ctx context.Context, namespace string, named map[string][]string) (map[string]string, error) {
	from := map[string]string{}
	for secret, keys := range named {
		head, err := k.head(ctx, types.NamespacedName{Namespace: namespace, Name: secret})
		if err != nil {
			return nil, err
		}
		if head != nil {
			from[secret] = fmt.Sprintf("%s %s %q", head.UID, head.ResourceVersion, keys)
		}
	}
	return from, nil
}

// collect gives the entries for what is named and exists. Of a thousand Secrets of which one has changed, only that one is read:
// those of the others are in before, which was made of the sources last.
func (k *keeper) collect(ctx context.Context, namespace string, named map[string][]string, from, last map[string]string, before map[string][]byte,
) (map[string][]byte, []trouble, error) {
	data := map[string][]byte{}
	var troubles []trouble
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(from)) {
		fits := true
		for _, key := range named[name] {
			entry := v1beta1.KeysSecretEntry(name, key)
			if value, ok := before[entry]; ok {
				data[entry] = value
			}
			fits = fits && len(entry) <= maxSecretKeyName
		}
		if before == nil || from[name] != last[name] || !fits {
			changed = append(changed, name)
		}
	}
	found := make([]*corev1.Secret, len(changed))
	if err := inParallel(len(changed), func(i int) (err error) {
		found[i], err = liveSecret(ctx, k.live, types.NamespacedName{Namespace: namespace, Name: changed[i]})
		return err
	}); err != nil {
		return nil, nil, err
	}
	for i, name := range changed {
		for _, key := range named[name] {
			entry := v1beta1.KeysSecretEntry(name, key)
			delete(data, entry)
			if found[i] == nil { // gone meanwhile, and the cache will hear of it
				continue
			}
			if value, ok := found[i].Data[key]; ok && len(entry) > maxSecretKeyName {
				troubles = append(troubles, trouble{entryTooLong, "Secret", name, fmt.Sprintf("key %s of Secret %s cannot be given to sidecars: the two names together have %d "+
					"characters, and %d are the most: shorten one", key, name, len(entry)-1, maxSecretKeyName-1)})
			} else if ok {
				data[entry] = value
			}
		}
	}
	return data, troubles, nil
}

// trustedCAs gives the installation's additional authorities, as they are written.
func (k *keeper) trustedCAs(ctx context.Context) (string, error) {
	var found corev1.ConfigMap
	err := k.cached.Get(ctx, types.NamespacedName{Namespace: k.namespace, Name: v1beta1.TrustedCAs}, &found)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("ConfigMap %s cannot be read: %w", v1beta1.TrustedCAs, err)
	}
	return found.Data[v1beta1.TrustedCAsKey], nil
}

// head gives the metadata of a Secret as the cache has it; nil where there is none.
func (k *keeper) head(ctx context.Context, id types.NamespacedName) (*metav1.PartialObjectMetadata, error) {
	return secretHead(ctx, k.cached, id)
}

// secret makes one of our two Secrets, unless it is there, and gives it.
func (k *keeper) secret(ctx context.Context, id types.NamespacedName, there *corev1.Secret, data map[string][]byte) (*corev1.Secret, error) {
	// One that cannot be changed is made anew. A token that was bound to it ends, and another one is asked for.
	fixed := there != nil && (there.Type != corev1.SecretTypeOpaque || there.Immutable != nil && *there.Immutable)
	if there != nil && (!fixed || !isOurs(there)) {
		return there, nil
	}
	if there != nil {
		k.log.Info("made anew, as it cannot be changed", "kind", "Secret", "namespace", id.Namespace, "name", id.Name)
		if err := k.deleteExactly(ctx, there); err != nil {
			return nil, err
		}
	}
	made := ourSecret(id, data)
	if err := k.client.Create(ctx, made, client.FieldOwner(v1beta1.ControllerName)); err != nil {
		return nil, fmt.Errorf("Secret %s cannot be made: %w", id, err) //nolint:staticcheck // Secret is a kind's name
	}
	return made, nil
}

func ourSecret(id types.NamespacedName, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: id.Namespace, Name: id.Name, Labels: map[string]string{v1beta1.PartOfLabel: v1beta1.PartOf}},
		Type:       corev1.SecretTypeOpaque, Data: data,
	}
}

// writeSecret gives one of our Secrets the content data and nothing else, and returns the version that has it. Nothing is written
// where it is so already.
func (k *keeper) writeSecret(ctx context.Context, seen *corev1.Secret, data map[string][]byte) (string, error) {
	if maps.EqualFunc(seen.Data, data, bytes.Equal) {
		return seen.ResourceVersion, nil
	}
	id := client.ObjectKeyFromObject(seen)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(ourSecret(id, data))
	if err != nil {
		return "", err
	}
	written := &unstructured.Unstructured{Object: content}
	if err := k.apply(ctx, written, seen); err != nil {
		return "", fmt.Errorf("Secret %s cannot be written: %w", id.Name, err) //nolint:staticcheck // Secret is a kind's name
	}
	// Apply leaves what somebody else has put in, or what was there when we made it. A revoked key must not stay.
	there, _, err := unstructured.NestedStringMap(written.Object, "data")
	if err != nil {
		return "", err
	}
	var surplus []string
	for entry := range there {
		if _, ok := data[entry]; !ok {
			surplus = append(surplus, fmt.Sprintf("%q:null", entry))
		}
	}
	if len(surplus) > 0 {
		patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"data":{%s}}`, written.GetResourceVersion(), strings.Join(surplus, ","))
		if err := k.client.Patch(ctx, written, client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner(v1beta1.ControllerName)); err != nil {
			return "", fmt.Errorf("entries of Secret %s cannot be removed: %w", id.Name, err)
		}
		if there, _, err = unstructured.NestedStringMap(written.Object, "data"); err != nil {
			return "", err
		}
	}
	if !maps.EqualFunc(there, data, func(text string, value []byte) bool { return text == base64.StdEncoding.EncodeToString(value) }) {
		return "", fmt.Errorf("Secret %s: %w", id.Name, errChangedOnItsWay) //nolint:staticcheck // Secret is a kind's name
	}
	return written.GetResourceVersion(), nil
}

// isReserved tells whether a Secret is one of ours, of which providers get nothing.
func isReserved(secret string) bool {
	return secret == v1beta1.AccessSecret || secret == v1beta1.KeysSecret
}
