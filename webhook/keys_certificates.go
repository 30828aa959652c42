package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// claimCertificates adds to what is wanted in a namespace of gateways the certificates that Istio Gateways name there, and the
// DestinationRules of that namespace, those of the oldest first, after what providers name. A Gateway of any namespace may: it gets to
// see none of them, and of a Secret nothing but what a certificate consists of is taken.
func (k *keeper) claimCertificates(ctx context.Context, namespace string, w *wantedKeys, named map[string]map[string]bool) error {
	ns := metadataOf("Namespace")
	if err := k.cached.Get(ctx, types.NamespacedName{Name: namespace}, ns); err != nil {
		return fmt.Errorf("the namespace %s cannot be read: %w", namespace, err)
	}
	workloads := gatewaysIn(ns)
	if len(workloads) == 0 {
		return nil
	}
	// Until they are known, what is there stays: without its certificates, a gateway serves nobody.
	if err := k.around.synced(); err != nil {
		return err
	}
	all := slices.DeleteFunc(k.around.all(), func(t *thing) bool {
		if len(t.content.DestinationRules) > 0 {
			return t.Namespace != namespace
		}
		return len(t.content.Gateways) == 0 || !slices.ContainsFunc(workloads, func(g routing.Workload) bool { return selectedBy(&t.content.Gateways[0], &g) })
	})
	slices.SortFunc(all, func(a, b *thing) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.ref.Path(), b.ref.Path()))
	})
	for _, t := range all {
		c := claim{uid: t.UID, name: t.ref.Path(), kind: t.ref.Kind}
		of := credentials(&t.content)
		for _, secret := range slices.Sorted(maps.Keys(of)) {
			if isReserved(namespace, secret) {
				w.troubles = append(w.troubles, trouble{reservedSecret, t.ref.Kind, t.Name, fmt.Sprintf("%s names Secret %s, which is the controller's own and holds no certificate: name another one", t.ref, secret)})
				continue
			}
			if named[secret] == nil {
				named[secret] = map[string]bool{}
			}
			for _, key := range of[secret] {
				named[secret][key] = true
				c.entries = append(c.entries, v1beta1.KeysSecretEntry(secret, key))
			}
		}
		if len(c.entries) > 0 {
			w.claims = append(w.claims, c)
		}
	}
	return nil
}

// followGateways has namespaces of gateways looked at when a Gateway or DestinationRule has changed that may name their certificates.
func (k *keeper) followGateways(q statusQueue) error {
	return k.around.follow(func(before, after *thing) {
		if after == nil {
			after = before
		}
		if after.ref.Kind != istio.KindGateway && after.ref.Kind != istio.KindDestinationRule || before != nil && before != after && before.Generation == after.Generation {
			return
		}
		for _, namespace := range k.kept() {
			ns := metadataOf("Namespace")
			if err := k.cached.Get(context.Background(), types.NamespacedName{Name: namespace}, ns); err == nil && len(gatewaysIn(ns)) > 0 {
				k.enqueue(q, namespace, priorityHigh, gatherTime)
			}
		}
	})
}
