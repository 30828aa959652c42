package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
)

// keptKeys is what is known of the keys Secret of a namespace at one version: what it was made of, and not what is in it.
type keptKeys struct {
	version     string
	authorities string
	telemetry   string
	from        map[string]string // Secret, or entry of an exported provider → what was taken of which version of it
	sizes       map[string]int    // of the values that there are for entries, in bytes
	claims      []claim
	left        map[types.UID]leftOut
	troubles    []trouble
}

// namedBy is what one generation of a provider names: Secrets and their keys.
type namedBy struct {
	generation int64
	keys       map[string][]string
}

// wantedKeys is what the providers that a namespace has or is given want in its keys Secret.
type wantedKeys struct {
	claims   []claim             // in the order in which they are served
	named    map[string][]string // Secrets of the namespace, and their keys
	exported []*export
	troubles []trouble
}

// keepKeys sees to the Secret that holds what the sidecars of a namespace may use of other Secrets.
func (k *keeper) keepKeys(ctx context.Context, ns metav1.Object, n *keptNamespace) ([]trouble, error) {
	namespace := ns.GetName()
	wanted, err := k.wantedKeys(ctx, namespace, n)
	if err != nil {
		return nil, err
	}
	troubles := wanted.troubles
	authorities, err := k.trustedCAs(ctx)
	if err != nil {
		return troubles, err
	}
	told, found, err := k.telemetryEntry(ctx, ns, []byte(n.keys.telemetry))
	troubles = append(troubles, found...)
	if err != nil {
		return troubles, err
	}
	from, err := k.sources(ctx, namespace, wanted)
	if err != nil {
		return troubles, err
	}
	id := types.NamespacedName{Namespace: namespace, Name: v1beta1.KeysSecret}
	head, err := k.head(ctx, id)
	if err != nil {
		return troubles, err
	}
	if current(n.keys.version, head) && isOurs(head) && maps.Equal(n.keys.from, from) && n.keys.authorities == authorities && n.keys.telemetry == told &&
		(len(n.keys.left) == 0 || slices.EqualFunc(n.keys.claims, wanted.claims, sameClaim)) {
		return append(troubles, n.keys.troubles...), nil
	}
	secret, err := liveSecret(ctx, k.live, id)
	if err != nil {
		return troubles, err
	}
	if secret != nil && !isOurs(secret) {
		n.keys = keptKeys{}
		k.full.set(namespace, k.namespace, nil)
		return append(troubles, *foreign("Secret", id)), nil
	}
	// What this process has not written itself tells what was told last.
	if kept := secret; kept != nil && n.keys.version == "" {
		if told, _, err = k.telemetryEntry(ctx, ns, kept.Data[v1beta1.TelemetryEntry]); err != nil {
			return troubles, err
		}
	}
	var before map[string][]byte
	if secret != nil && secret.ResourceVersion == n.keys.version {
		before = secret.Data
	}
	c := &collection{k: k, namespace: namespace, wanted: wanted, from: from, last: &n.keys, sizes: map[string]int{}, values: map[string][]byte{}}
	data, err := c.collect(ctx, map[string]string{v1beta1.TrustedCAEntry: authorities, v1beta1.TelemetryEntry: told}, before)
	if err != nil {
		return troubles, err
	}
	if secret, err = k.secret(ctx, id, secret, data); err != nil {
		return troubles, err
	}
	version, err := k.writeSecret(ctx, secret, data)
	if err != nil {
		return troubles, err
	}
	n.keys = keptKeys{version, authorities, told, c.from, c.sizes, wanted.claims, c.left, c.troubles}
	k.full.set(namespace, k.namespace, c.left)
	return append(troubles, c.troubles...), nil
}

// wantedKeys gives what is wanted in a namespace's keys Secret. Changes of the Secrets that are named are noticed from here on.
func (k *keeper) wantedKeys(ctx context.Context, namespace string, n *keptNamespace) (*wantedKeys, error) {
	list, err := listKind(ctx, k.cached, statusKinds[0], namespace)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(a, b unstructured.Unstructured) int {
		created := a.GetCreationTimestamp()
		return cmp.Or(created.Compare(b.GetCreationTimestamp().Time), cmp.Compare(a.GetName(), b.GetName()))
	})
	w := &wantedKeys{named: map[string][]string{}}
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
		c := claim{uid: u.GetUID(), name: u.GetName()}
		for _, secret := range slices.Sorted(maps.Keys(by.keys)) {
			if isReserved(namespace, secret) {
				w.troubles = append(w.troubles, trouble{reservedSecret, v1beta1.KindLLMProvider, u.GetName(), fmt.Sprintf("LLMProvider %s names Secret %s, which is the controller's own and holds no key of a provider: "+
					"name a Secret of your own", u.GetName(), secret)})
				continue
			}
			if named[secret] == nil {
				named[secret] = map[string]bool{}
			}
			for _, key := range by.keys[secret] {
				named[secret][key] = true
				c.entries = append(c.entries, v1beta1.KeysSecretEntry(secret, key))
			}
		}
		w.claims = append(w.claims, c)
	}
	if err := k.claimCertificates(ctx, namespace, w, named); err != nil {
		return nil, err
	}
	all := map[types.NamespacedName]bool{}
	for secret, keys := range named {
		w.named[secret] = slices.Sorted(maps.Keys(keys))
		all[types.NamespacedName{Namespace: namespace, Name: secret}] = true
	}
	exported, err := k.exportedTo(ctx, namespace)
	if err != nil {
		return nil, err
	}
	for _, e := range exported {
		entry := v1beta1.ExportedEntry(e.name)
		if len(entry) > v1beta1.MaxKeysSecretEntry {
			w.troubles = append(w.troubles, trouble{entryTooLong, v1beta1.KindLLMProvider, e.name, fmt.Sprintf("LLMProvider %s/%s cannot be used here: a name of %d characters at most can be exported. "+
				"Ask those who run Remora to shorten it", k.namespace, e.name, v1beta1.MaxKeysSecretEntry-len(v1beta1.ExportedPrefix))})
			continue
		}
		for secret := range e.keys {
			all[types.NamespacedName{Namespace: k.namespace, Name: secret}] = true
		}
		w.exported = append(w.exported, e)
		w.claims = append(w.claims, claim{uid: e.uid, name: e.name, exported: true, entries: []string{entry}})
	}
	n.providers = providers
	k.mu.Lock()
	n.named = all
	k.mu.Unlock()
	return w, nil
}

// sources tells, of all that is wanted and exists, which version of it there is and what of it is named. Nothing is read.
func (k *keeper) sources(ctx context.Context, namespace string, w *wantedKeys) (map[string]string, error) {
	from := map[string]string{}
	for secret, keys := range w.named {
		head, err := k.head(ctx, types.NamespacedName{Namespace: namespace, Name: secret})
		if err != nil {
			return nil, err
		}
		if head != nil {
			from[secret] = fmt.Sprintf("%s %s %q", head.UID, head.ResourceVersion, keys)
		}
	}
	for _, e := range w.exported {
		var err error
		if from[v1beta1.ExportedEntry(e.name)], err = k.exportedSources(ctx, e); err != nil {
			return nil, err
		}
	}
	return from, nil
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
// where it is so already, and of a hundred entries only those that differ: a revoked key is to be gone in a hundred namespaces at once.
func (k *keeper) writeSecret(ctx context.Context, seen *corev1.Secret, data map[string][]byte) (string, error) {
	changes := map[string]any{}
	for entry := range seen.Data {
		if _, ok := data[entry]; !ok {
			changes[entry] = nil
		}
	}
	for entry, value := range data {
		if before, ok := seen.Data[entry]; !ok || !bytes.Equal(before, value) {
			changes[entry] = value
		}
	}
	if len(changes) == 0 {
		return seen.ResourceVersion, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": seen.ResourceVersion}, "data": changes})
	if err != nil {
		return "", err
	}
	written := ourSecret(client.ObjectKeyFromObject(seen), nil)
	if err := k.client.Patch(ctx, written, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(v1beta1.ControllerName)); err != nil {
		return "", fmt.Errorf("Secret %s cannot be written: %w", seen.Name, err) //nolint:staticcheck // Secret is a kind's name
	}
	if !maps.EqualFunc(written.Data, data, bytes.Equal) {
		return "", fmt.Errorf("Secret %s: %w", seen.Name, errChangedOnItsWay) //nolint:staticcheck // Secret is a kind's name
	}
	return written.ResourceVersion, nil
}

// isReserved tells whether a Secret is one of ours, of which providers get nothing.
func isReserved(namespace, secret string) bool {
	return secret == v1beta1.AccessSecret || secret == v1beta1.KeysSecret || namespace == v1beta1.InstallationNamespace && secret == v1beta1.WebhookCASecret
}
