package main

import (
	"bytes"
	"fmt"
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

func tooMuch(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	big := func(c string) map[string]string { return map[string]string{"apiKey": strings.Repeat(c, 600<<10)} }
	r.secret(t, ns, "a", big("a"))
	r.apply(t, ns, providerYAML("a", keyed("a", "apiKey")))
	before := r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(map[string]string{"a_apiKey": big("a")["apiKey"]}))
	r.secret(t, ns, "b", big("b"))
	r.apply(t, ns, providerYAML("b", keyed("b", "apiKey")))
	r.awaitTrouble(t, ns, "KeysTooLarge", "1200 KiB", "1024 KiB", "Remedy")
	r.awaitMetric(t, `remora_namespace_problems{code="KeysTooLarge"} 1`)
	now := r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool { return s != nil })
	if now.ResourceVersion != before.ResourceVersion || !bytes.Equal(now.Data["a_apiKey"], before.Data["a_apiKey"]) {
		t.Error("the Secret has changed")
	}
	r.secret(t, ns, "b", map[string]string{"apiKey": "sk-small"})
	r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool { return len(s.Data) == 2 })
	r.awaitMetric(t, `remora_namespace_problems{code="KeysTooLarge"} 0`)
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
