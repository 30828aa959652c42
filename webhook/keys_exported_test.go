package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
)

const system = v1beta1.InstallationNamespace

// exportedHolds tells whether a keys Secret has these providers and nothing else: name → "host SECRET/KEY=VALUE ...".
func exportedHolds(t *testing.T, want map[string]string) func(*corev1.Secret) bool {
	t.Helper()
	return func(s *corev1.Secret) bool { return s != nil && maps.Equal(exportedIn(t, s), want) }
}

func exportedIn(t *testing.T, s *corev1.Secret) map[string]string {
	t.Helper()
	all := map[string]string{}
	for entry, value := range s.Data {
		name, ok := strings.CutPrefix(entry, v1beta1.ExportedPrefix)
		if !ok {
			all[entry] = string(value)
			continue
		}
		var e v1beta1.ExportedProvider
		var p v1beta1.LLMProvider
		if json.Unmarshal(value, &e) != nil || json.Unmarshal(e.Provider, &p) != nil || p.Name != name || p.Namespace != system || p.UID == "" || p.CreationTimestamp.IsZero() {
			all[name] = "broken"
			continue
		}
		if len(p.Annotations)+len(p.Labels)+len(p.ManagedFields)+len(p.Status.Conditions) > 0 {
			t.Errorf("%s has more than it should", entry)
		}
		words := []string{p.Spec.Host}
		if e.Withheld {
			words = append(words, "withheld")
		}
		for _, secret := range slices.Sorted(maps.Keys(e.Secrets)) {
			for _, key := range slices.Sorted(maps.Keys(e.Secrets[secret])) {
				words = append(words, fmt.Sprintf("%s/%s=%.20s", secret, key, e.Secrets[secret][key]))
			}
		}
		all[name] = strings.Join(words, " ")
	}
	return all
}

func exportedSpec(to, secret, rest string) string {
	return fmt.Sprintf("{host: %s.example.com, exportTo: %s, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: %s}}}}%s}", secret, to, secret, rest)
}

func TestProvidersOfTheInstallationReachTheNamespacesTheyName(t *testing.T) {
	r := newAccessRig(t)
	r.start(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *accessRig, string)
	}{
		{"TheyFollowEveryChange", exportsFollow}, {"NothingOfOurOwnIsExported", exportsReserved}, {"WhileNamespacesComeAndGo", exportsMeanwhile},
		{"TheOldestHaveRoom", exportsTooMuch}, {"NoNameStopsTheOthers", exportsLongName}, {"AlsoAfterARestart", exportsRestart},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, r, strings.ToLower(c.name)) })
	}
	r.stop()
	for _, line := range r.errorsOf("access") {
		if !strings.Contains(line, "context canceled") { // by the restart
			t.Errorf("nothing was wrong with the API server, but: %s", line)
		}
	}
	if log := r.log.all(); strings.Contains(log, "sk-") {
		t.Error("the log has a key")
	}
}

func exportsFollow(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	a, b, other := ns+"-a", ns+"-b", ns+"-c"
	r.label(t, a, v1beta1.InjectEnabled)
	r.label(t, b, v1beta1.InjectPods)
	r.label(t, other, v1beta1.InjectDisabled)
	in := func(namespace string, want map[string]string) {
		t.Helper()
		start := time.Now()
		r.awaitSecret(t, namespace, v1beta1.KeysSecret, exportedHolds(t, want))
		t.Logf("%v after %s", slices.Sorted(maps.Keys(want)), time.Since(start).Round(time.Millisecond))
	}
	only := func(words string) map[string]string { return map[string]string{"shared": words} }

	// The provider comes before its Secret.
	r.apply(t, system, providerYAML("shared", exportedSpec("["+a+"]", "one", "")))
	in(a, only("one.example.com"))
	r.secret(t, system, "one", map[string]string{"apiKey": "sk-1", "unnamed": "sk-none"})
	in(a, only("one.example.com one/apiKey=sk-1"))
	in(b, nil)

	// To all, with several keys and a certificate.
	r.secret(t, system, "two", map[string]string{"k": "sk-2"})
	r.secret(t, system, "pair", map[string]string{"tls.crt": "certificate", "tls.key": "private", "ca.crt": "nobody asked"})
	r.apply(t, system, providerYAML("shared", "{host: one.example.com, exportTo: ['*'], tls: {mode: MUTUAL, clientCertificateRef: {name: pair}}, "+
		"configs: {defaultConfig: {openAIConfig: {apiKeyRefs: [{name: one}, {name: two, key: k}]}}}}"))
	all := only("one.example.com one/apiKey=sk-1 pair/tls.crt=certificate pair/tls.key=private two/k=sk-2")
	in(a, all)
	in(b, all)

	// The Secret changes, loses its entry, and goes.
	r.secret(t, system, "two", map[string]string{"k": "sk-new"})
	in(a, only("one.example.com one/apiKey=sk-1 pair/tls.crt=certificate pair/tls.key=private two/k=sk-new"))
	in(b, only("one.example.com one/apiKey=sk-1 pair/tls.crt=certificate pair/tls.key=private two/k=sk-new"))
	r.secret(t, system, "two", map[string]string{"other": "sk-new"})
	in(b, only("one.example.com one/apiKey=sk-1 pair/tls.crt=certificate pair/tls.key=private"))
	r.delete(t, system, "secret", "pair")
	in(b, only("one.example.com one/apiKey=sk-1"))

	// A Secret of that name in the namespace is another one, and so is a provider.
	r.secret(t, b, "one", map[string]string{"apiKey": "sk-own"})
	r.apply(t, b, providerYAML("shared", keyed("one", "apiKey")))
	in(b, map[string]string{"shared": "one.example.com one/apiKey=sk-1", "one_apiKey": "sk-own"})
	r.delete(t, b, "llmprovider", "shared")
	in(b, only("one.example.com one/apiKey=sk-1"))

	// What somebody else writes there does not stay.
	if out, err := r.Kubectl(t.Context(), "-n", b, "patch", "secret", v1beta1.KeysSecret, "--type=merge", "-p", `{"stringData": {"_provider_shared": "{}", "_provider_theirs": "{}"}}`); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	in(b, only("one.example.com one/apiKey=sk-1"))

	// It is withdrawn from one, the reference goes, and the provider goes.
	r.apply(t, system, providerYAML("shared", exportedSpec("["+a+"]", "one", "")))
	in(b, nil)
	in(a, only("one.example.com one/apiKey=sk-1"))
	r.apply(t, system, providerYAML("shared", "{host: one.example.com, exportTo: ["+a+"]}"))
	in(a, only("one.example.com"))
	r.delete(t, system, "llmprovider", "shared")
	in(a, nil)
	if found := r.there(t.Context(), t, other); len(found) > 0 {
		t.Errorf("a namespace without label has %v", found)
	}
	if found := r.there(t.Context(), t, system); len(found) > 0 {
		t.Errorf("the installation's has %v", found)
	}

	// What another namespace says of itself exports nothing.
	r.apply(t, b, providerYAML("mine", exportedSpec("['*']", "one", "")))
	in(b, map[string]string{"one_apiKey": "sk-own"})
	in(a, nil)
	r.delete(t, system, "secret", "one", "two")
}

func exportsReserved(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.secret(t, system, v1beta1.WebhookCASecret, map[string]string{"tls.key": "sk-authority", "tls.crt": "sk-authority"})
	r.secret(t, system, "real", map[string]string{"apiKey": "sk-1"})
	r.apply(t, system, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: someone}}
---
{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: token, annotations: {kubernetes.io/service-account.name: someone}}, stringData: {token: sk-token}}
`+providerYAML("ca", fmt.Sprintf("{host: ca.example.com, exportTo: ['*'], configs: {defaultConfig: {openAIConfig: {apiKeyRefs: [{name: real}, {name: %s, key: tls.key}, {name: %s, key: token}, {name: token, key: token}]}}}}",
		v1beta1.WebhookCASecret, v1beta1.AccessSecret))+
		providerYAML("pair", fmt.Sprintf("{host: pair.example.com, exportTo: ['*'], tls: {mode: MUTUAL, clientCertificateRef: {name: %s}}}", v1beta1.WebhookCASecret)))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, exportedHolds(t, map[string]string{"ca": "ca.example.com real/apiKey=sk-1", "pair": "pair.example.com"}))
	r.await(t, provider, system, "pair", func(s *shown) bool { return s.unresolved("SecretNotFound", v1beta1.WebhookCASecret) })
	r.await(t, provider, system, "ca", func(s *shown) bool { return s.unresolved("SecretNotFound", "remora-system/token") })
	r.delete(t, system, "llmprovider", "ca", "pair")
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(nil))
}

// Namespaces are made, and lose their label, while providers are exported to all and withdrawn.
func exportsMeanwhile(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.secret(t, system, "k", map[string]string{"apiKey": "sk-1"})
	made := make(chan []string)
	go func() { made <- r.labelMany(t, ns, 60) }()
	for i := range 10 {
		r.apply(t, system, providerYAML(fmt.Sprintf("p%d", i), exportedSpec("['*']", "k", "")))
	}
	r.delete(t, system, "llmprovider", "p3", "p4")
	r.secret(t, system, "k", map[string]string{"apiKey": "sk-2"})
	want := map[string]string{}
	for _, i := range []int{0, 1, 2, 5, 6, 7, 8, 9} {
		want[fmt.Sprintf("p%d", i)] = "k.example.com k/apiKey=sk-2"
	}
	all := <-made
	for _, name := range all {
		r.awaitSecret(t, name, v1beta1.KeysSecret, exportedHolds(t, want))
	}
	// One that leaves has it until its last pod has ended, and loses what is withdrawn.
	r.label(t, all[0], v1beta1.InjectEnabled) // and an account
	pod := r.pod(t, all[0], "p", injected)
	r.label(t, all[0], v1beta1.InjectDisabled)
	r.awaitMetric(t, `remora_namespaces{state="leaving"} 1`)
	r.delete(t, system, "llmprovider", "p0")
	delete(want, "p0")
	r.awaitSecret(t, all[0], v1beta1.KeysSecret, exportedHolds(t, want))
	if err := r.admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	r.awaitNone(t, all[0])
	r.delete(t, system, "llmprovider", "--all")
	for _, name := range all[1:] {
		r.awaitSecret(t, name, v1beta1.KeysSecret, holds(nil))
	}
}

func exportsLongName(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	long := strings.Repeat("n", 250)
	r.label(t, ns, v1beta1.InjectEnabled)
	r.apply(t, system, providerYAML(long, "{host: long.example.com, exportTo: ["+ns+"]}")+providerYAML("short", "{host: short.example.com, exportTo: ["+ns+"]}"))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, exportedHolds(t, map[string]string{"short": "short.example.com"}))
	r.awaitTrouble(t, ns, "EntryNameTooLong", "243 characters", "Ask those who run Remora")
	r.delete(t, system, "llmprovider", long, "short")
}

// What changes while no controller is there is caught up with by the next one.
func exportsRestart(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.secret(t, system, "gone", map[string]string{"apiKey": "sk-gone"})
	r.secret(t, system, "less", map[string]string{"apiKey": "sk-less"})
	r.secret(t, ns, "own", map[string]string{"apiKey": "sk-own"})
	r.apply(t, ns, providerYAML("own", keyed("own", "apiKey")))
	r.apply(t, system, providerYAML("gone", exportedSpec("['*']", "gone", ""))+providerYAML("less", exportedSpec("['*']", "less", ""))+providerYAML("withdrawn", exportedSpec("['*']", "less", "")))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool {
		return exportedHolds(t, map[string]string{"gone": "gone.example.com gone/apiKey=sk-gone", "less": "less.example.com less/apiKey=sk-less", "withdrawn": "less.example.com less/apiKey=sk-less", "own_apiKey": "sk-own"})(s)
	})
	r.stop()
	r.delete(t, system, "secret", "gone")
	r.delete(t, ns, "secret", "own")
	r.secret(t, system, "less", map[string]string{"other": "sk-less"})
	r.apply(t, system, providerYAML("withdrawn", exportedSpec("['.']", "less", "")))
	r.start(t)
	r.awaitSecret(t, ns, v1beta1.KeysSecret, exportedHolds(t, map[string]string{"gone": "gone.example.com", "less": "less.example.com"}))
	r.delete(t, system, "llmprovider", "--all")
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(nil))
}

func exportsTooMuch(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	other := ns + "-other"
	to := "[" + ns + ", " + other + "]"
	r.label(t, ns, v1beta1.InjectEnabled)
	r.label(t, other, v1beta1.InjectEnabled)
	r.secret(t, ns, "own", ofSize("o", 500))
	r.apply(t, ns, providerYAML("own", keyed("own", "apiKey")))
	r.secret(t, system, "wide", ofSize("w", 500))
	r.apply(t, system, providerYAML("wide", exportedSpec(to, "wide", "")))
	begun := func(c string) string { return strings.Repeat(c, 20) }

	// 500 KiB of key are 667 KiB of base64. Where it does not fit its host stays, so that calls are refused.
	r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool {
		return s != nil && len(s.Data["own_apiKey"]) == 500<<10 && exportedIn(t, s)["wide"] == "wide.example.com withheld"
	})
	r.awaitSecret(t, other, v1beta1.KeysSecret, exportedHolds(t, map[string]string{"wide": "wide.example.com wide/apiKey=" + begun("w")}))
	r.awaitTrouble(t, ns, "KeysTooLarge", "LLMProvider wide, which is exported", "1024 KiB", "calls to it are refused", "Remedy")
	r.await(t, provider, system, "wide", func(s *shown) bool {
		return s.unresolved("KeysTooLarge", "calls to it are refused in "+ns+".") && !strings.Contains(s.condition(v1beta1.ConditionResolvedRefs).Message, other)
	})
	// Rotation of the other goes on.
	r.secret(t, ns, "own", map[string]string{"apiKey": "sk-small"})
	r.awaitSecret(t, ns, v1beta1.KeysSecret, exportedHolds(t, map[string]string{"own_apiKey": "sk-small", "wide": "wide.example.com wide/apiKey=" + begun("w")}))
	r.await(t, provider, system, "wide", (*shown).resolved)

	// Too much for anybody.
	r.secret(t, system, "more", ofSize("m", 900))
	r.apply(t, system, providerYAML("wide", "{host: wide.example.com, exportTo: "+to+", configs: {defaultConfig: {openAIConfig: {apiKeyRefs: [{name: wide}, {name: more}]}}}}"))
	r.awaitSecret(t, other, v1beta1.KeysSecret, exportedHolds(t, map[string]string{"wide": "wide.example.com withheld"}))
	r.await(t, provider, system, "wide", func(s *shown) bool { return s.unresolved("KeysTooLarge", ns+", "+other) })
	r.delete(t, system, "secret", "more")
	r.awaitSecret(t, other, v1beta1.KeysSecret, exportedHolds(t, map[string]string{"wide": "wide.example.com wide/apiKey=" + begun("w")}))
	r.await(t, provider, system, "wide", func(s *shown) bool { return s.unresolved("SecretNotFound", "remora-system/more") })
	r.awaitMetric(t, `remora_namespace_problems{code="KeysTooLarge"} 0`)
	r.delete(t, system, "llmprovider", "--all")
}
