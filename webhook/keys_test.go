package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
)

func keyed(secret, key string) string {
	return fmt.Sprintf("{host: %s.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: %s, key: %s}}}}}", secret, secret, key)
}

func (r *accessRig) secret(tb testing.TB, namespace, name string, data map[string]string) {
	tb.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := r.admin.Get(tb.Context(), client.ObjectKeyFromObject(s), s); err == nil {
		s.Data = nil
		s.StringData = data
		if err := r.admin.Update(tb.Context(), s); err != nil {
			tb.Fatal(err)
		}
		return
	}
	if err := r.admin.Create(tb.Context(), secretOf(namespace, name, corev1.SecretTypeOpaque, data)); err != nil {
		tb.Fatal(err)
	}
}

func keysFollow(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitFive(t, ns)
	keys := func(want map[string]string) {
		t.Helper()
		start := time.Now()
		r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(want))
		t.Logf("%d entries after %s", len(want), time.Since(start).Round(time.Millisecond))
	}
	// The provider comes before its Secret, and the Secret has more than is named.
	r.apply(t, ns, providerYAML("p", keyed("first", "one")))
	r.secret(t, ns, "first", map[string]string{"one": "sk-1", "two": "sk-2"})
	r.secret(t, ns, "unnamed", map[string]string{"one": "sk-none"})
	keys(map[string]string{"first_one": "sk-1"})

	r.secret(t, ns, "first", map[string]string{"one": "sk-new", "two": "sk-2"})
	keys(map[string]string{"first_one": "sk-new"})

	// A rule of its own, and a certificate.
	r.secret(t, ns, "vip", map[string]string{"apiKey": "sk-vip"})
	r.secret(t, ns, "pair", map[string]string{"tls.crt": "certificate", "tls.key": "private", "ca.crt": "nobody asked"})
	r.apply(t, ns, providerYAML("p", "{host: first.example.com, tls: {mode: MUTUAL, clientCertificateRef: {name: pair}}, "+
		"configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: first, key: two}}}, routeSpecificConfigs: {vip: {openAIConfig: {apiKeyRef: {name: vip}}}}}}"))
	keys(map[string]string{"first_two": "sk-2", "vip_apiKey": "sk-vip", "pair_tls.crt": "certificate", "pair_tls.key": "private"})

	// The installation's authorities, which may come and go.
	ca := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1beta1.InstallationNamespace, Name: v1beta1.TrustedCAs}, Data: map[string]string{"ca.crt": "PEM", "other": "x"}}
	if err := r.admin.Create(t.Context(), ca); err != nil {
		t.Fatal(err)
	}
	keys(map[string]string{"first_two": "sk-2", "vip_apiKey": "sk-vip", "pair_tls.crt": "certificate", "pair_tls.key": "private", v1beta1.TrustedCAEntry: "PEM"})
	ca.Data["ca.crt"] = "PEM of another"
	if err := r.admin.Update(t.Context(), ca); err != nil {
		t.Fatal(err)
	}
	r.delete(t, ns, "secret", "vip")
	keys(map[string]string{"first_two": "sk-2", "pair_tls.crt": "certificate", "pair_tls.key": "private", v1beta1.TrustedCAEntry: "PEM of another"})
	if err := r.admin.Delete(t.Context(), ca); err != nil {
		t.Fatal(err)
	}
	r.delete(t, ns, "llmprovider", "p")
	keys(nil)

	// A Secret of that name in another namespace changes nothing.
	r.apply(t, ns, providerYAML("p", keyed("elsewhere", "apiKey")))
	other := ns + "-other"
	r.label(t, other, v1beta1.InjectEnabled)
	r.secret(t, other, "elsewhere", map[string]string{"apiKey": "sk-other"})
	r.apply(t, other, providerYAML("p", keyed("elsewhere", "apiKey")))
	r.awaitSecret(t, other, v1beta1.KeysSecret, holds(map[string]string{"elsewhere_apiKey": "sk-other"}))
	keys(nil)
}

func reserved(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.secret(t, ns, "real", map[string]string{"apiKey": "sk-1"})
	r.apply(t, ns, providerYAML("real", keyed("real", "apiKey"))+providerYAML("thief", keyed("remora-sidecar-access", "token"))+providerYAML("loop", keyed("remora-sidecar-keys", "real_apiKey")))
	r.awaitFive(t, ns)
	r.awaitTrouble(t, ns, "ReservedSecret", "LLMProvider thief", "remora-sidecar-access", "name a Secret of your own")
	r.awaitTrouble(t, ns, "ReservedSecret", "LLMProvider loop", "remora-sidecar-keys")
	s := r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(map[string]string{"real_apiKey": "sk-1"}))
	r.await(t, provider, ns, "thief", func(s *shown) bool { return s.unresolved("SecretNotFound", "") })

	// And nothing goes round in circles.
	r.secret(t, ns, "real", map[string]string{"apiKey": "sk-2"})
	after := r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(map[string]string{"real_apiKey": "sk-2"}))
	r.passes(t, 100) // of all the namespaces of this test
	last := r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool { return s != nil })
	if last.ResourceVersion != after.ResourceVersion || s.UID != last.UID {
		t.Errorf("it was written again: %s, %s", after.ResourceVersion, last.ResourceVersion)
	}
	r.delete(t, ns, "llmprovider", "thief", "loop")
	r.awaitMetric(t, `remora_namespace_problems{code="ReservedSecret"} 0`)
}

func ofSize(c string, kib int) map[string]string {
	return map[string]string{"apiKey": strings.Repeat(c, kib<<10)}
}

// lengths tells whether a keys Secret has values of these lengths, in KiB, and nothing else.
func lengths(want map[string]int) func(*corev1.Secret) bool {
	return func(s *corev1.Secret) bool {
		return s != nil && maps.EqualFunc(s.Data, want, func(a []byte, b int) bool { return len(a) == b<<10 })
	}
}

func tooMuch(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.secret(t, ns, "a", ofSize("a", 600))
	r.apply(t, ns, providerYAML("a", keyed("a", "apiKey")))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, lengths(map[string]int{"a_apiKey": 600}))
	r.secret(t, ns, "b", ofSize("b", 600))
	r.apply(t, ns, providerYAML("b", keyed("b", "apiKey")))
	r.awaitTrouble(t, ns, "KeysTooLarge", "LLMProvider b needs 601 KiB", "1024 KiB", "423 KiB", "Remedy")
	r.awaitMetric(t, `remora_namespace_problems{code="KeysTooLarge"} 1`)
	r.await(t, provider, ns, "b", func(s *shown) bool { return s.unresolved("KeysTooLarge", "needs 601 KiB") })
	r.await(t, provider, ns, "a", (*shown).resolved)

	// What has its place is rotated, and what is younger and fits has one too.
	r.secret(t, ns, "a", ofSize("A", 600))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool { return s.Data["a_apiKey"][0] == 'A' })
	r.secret(t, ns, "c", ofSize("c", 300))
	r.apply(t, ns, providerYAML("c", keyed("c", "apiKey")))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, lengths(map[string]int{"a_apiKey": 600, "c_apiKey": 300}))

	// An older one that grows takes the place of a younger one, which has it back when that shrinks.
	r.secret(t, ns, "a", ofSize("a", 800))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, lengths(map[string]int{"a_apiKey": 800}))
	r.await(t, provider, ns, "c", func(s *shown) bool { return s.unresolved("KeysTooLarge", "needs 301 KiB") })
	r.secret(t, ns, "a", ofSize("a", 400))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, lengths(map[string]int{"a_apiKey": 400, "b_apiKey": 600}))
	r.await(t, provider, ns, "b", (*shown).resolved)

	// A revoked key goes, however full it is, and its place is taken.
	r.delete(t, ns, "secret", "a")
	r.awaitSecret(t, ns, v1beta1.KeysSecret, lengths(map[string]int{"b_apiKey": 600, "c_apiKey": 300}))
	r.await(t, provider, ns, "a", func(s *shown) bool { return s.unresolved("SecretNotFound", "") })

	// One that is too much by itself stands in nobody's way, not even where it is the oldest. It is left out whole.
	r.secret(t, ns, "a", ofSize("a", 10))
	r.secret(t, ns, "d", ofSize("d", 1020))
	r.apply(t, ns, providerYAML("a", "{host: a.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRefs: [{name: a}, {name: d}]}}}}"))
	r.await(t, provider, ns, "a", func(s *shown) bool { return s.unresolved("KeysTooLarge", "needs 1031 KiB") })
	r.awaitSecret(t, ns, v1beta1.KeysSecret, lengths(map[string]int{"b_apiKey": 600, "c_apiKey": 300}))

	// Many are, and none of them is held.
	var many, secrets strings.Builder
	for i := range 8 {
		fmt.Fprintf(&secrets, "---\n{apiVersion: v1, kind: Secret, metadata: {name: m%d}, stringData: {apiKey: %q}}\n", i, strings.Repeat("m", 250<<10))
		many.WriteString(providerYAML(fmt.Sprintf("m%d", i), keyed(fmt.Sprintf("m%d", i), "apiKey")))
	}
	r.create(t, ns, secrets.String())
	r.apply(t, ns, many.String())
	r.awaitTrouble(t, ns, "KeysTooLarge", "LLMProvider m7 needs 251 KiB")
	r.delete(t, ns, "llmprovider", "b", "c")
	r.awaitSecret(t, ns, v1beta1.KeysSecret, lengths(map[string]int{"m0_apiKey": 250, "m1_apiKey": 250, "m2_apiKey": 250, "m3_apiKey": 250}))
	r.delete(t, ns, "llmprovider", "--all")
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(nil))
	r.awaitMetric(t, `remora_namespace_problems{code="KeysTooLarge"} 0`)
}

// create makes objects that are too large for apply.
func (r *accessRig) create(tb testing.TB, namespace, yaml string) {
	tb.Helper()
	if out, err := r.KubectlWith(tb.Context(), yaml, "-n", namespace, "create", "-f", "-"); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

func nameTooLong(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	long := strings.Repeat("k", 200)
	r.label(t, ns, v1beta1.InjectEnabled)
	r.secret(t, ns, "good", map[string]string{"apiKey": "sk-1"})
	r.secret(t, ns, strings.Repeat("s", 60), map[string]string{long: "sk-2"})
	r.apply(t, ns, providerYAML("good", keyed("good", "apiKey"))+providerYAML("long", keyed(strings.Repeat("s", 60), long)))
	r.awaitTrouble(t, ns, "EntryNameTooLong", "shorten one")
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(map[string]string{"good_apiKey": "sk-1"}))
}
