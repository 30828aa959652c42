package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

const (
	provider = v1beta1.KindLLMProvider
	route    = v1beta1.KindLLMRoute
)

func providerYAML(name, spec string) string {
	return fmt.Sprintf("---\napiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: %s}\nspec: %s\n", name, spec)
}

func routeYAML(name, spec string) string {
	return fmt.Sprintf("---\napiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: %s}\nspec: %s\n", name, spec)
}

// One API server and one controller serve all of it: each has a namespace of its own.
func TestTheStatusSaysWhatCompileSays(t *testing.T) {
	r := newStatusRig(t)
	r.start(t)
	for name, test := range map[string]func(*testing.T, *statusRig, string){
		"AnObjectIsJudgedAndJudgedAgainWhenItChanges":     judgedAgain,
		"AWarningStandsInTheMessage":                      warned,
		"TheYoungerOfTwoRivalsIsRefusedUntilTheOlderGoes": rivals,
		"ARouteResolvesWhenItsProviderComes":              providerComes,
		"ARouteResolvesWhenItsProviderIsExported":         exportComes,
		"AProviderResolvesWhenItsSecretComes":             secretComes,
		"ASecretIsJudgedByWhatItHolds":                    secretJudged,
		"AClientCertificateIsJudged":                      certificateJudged,
		"AConditionOfSomebodyElseStays":                   foreignCondition,
		"WhatIsOverwrittenIsWrittenAgain":                 overwritten,
		"AFlipIsTold":                                     told,
	} {
		t.Run(name, func(t *testing.T) { test(t, r, strings.ToLower(name[:min(len(name), 60)])) })
	}
}

func judgedAgain(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}"))
	s := r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("") && s.resolved() })
	if age := time.Since(s.condition("Accepted").LastTransitionTime.Time); age < -time.Second || age > patience {
		t.Errorf("the transition was %v ago", age)
	}

	// So that a new time would show.
	past := metav1.NewTime(time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC))
	if out, err := r.Kubectl(t.Context(), "-n", ns, "patch", "llmprovider", "p", "--subresource=status", "--type=json", "-p",
		`[{"op":"replace","path":"/status/conditions/0/lastTransitionTime","value":"2001-02-03T04:05:06Z"},{"op":"replace","path":"/status/conditions/1/lastTransitionTime","value":"2001-02-03T04:05:06Z"}]`); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.apply(t, ns, providerYAML("p", "{host: b.example.com}"))
	s = r.await(t, provider, ns, "p", func(s *shown) bool { return s.Generation == 2 && s.accepted("") && s.resolved() })
	if got := s.condition("Accepted").LastTransitionTime; !got.Equal(&past) {
		t.Errorf("the transition time of a condition that did not flip went to %v", got)
	}

	r.apply(t, ns, providerYAML("p", `{host: b.example.com, path: /v1/../admin, tls: {caBundle: bm8=}}`))
	s = r.await(t, provider, ns, "p", func(s *shown) bool { return s.refused("InvalidValue", "spec.tls.caBundle: is not PEM") })
	c := s.condition("Accepted")
	if !strings.Contains(c.Message, `; spec.tls.caBundle`) || !strings.Contains(c.Message, "spec.path") || c.LastTransitionTime.Equal(&past) {
		t.Errorf("not all faults, or not now: %+v", c)
	}
	if got := s.condition("ResolvedRefs"); got.Status != metav1.ConditionTrue || !got.LastTransitionTime.Equal(&past) {
		t.Errorf("ResolvedRefs did not flip: %+v", got)
	}
	r.apply(t, ns, providerYAML("p", "{host: b.example.com, tls: {caBundle: null}, path: /v1/chat/completions}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("in use") })

	out, err := r.Kubectl(t.Context(), "-n", ns, "get", "llmproviders", "--no-headers")
	if fields := strings.Fields(out); err != nil || !slices.Contains(fields, "True") {
		t.Errorf("kubectl get shows no True: %v\n%s", err, out)
	}
}

func warned(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", `{host: a.example.com, tls: {mode: DISABLE, allowInsecureKey: true}, configs: {defaultConfig: {openAIConfig: {apiKey: sk-secret-value}}, routeSpecificConfigs: {nobody: {}}}}`))
	s := r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("(InlineKey)") })
	for _, code := range []string{"KeyInPlainText", "RouteConfigUnused"} {
		if !s.accepted("(" + code + ")") {
			t.Errorf("the message does not warn of %s: %s", code, s.condition("Accepted").Message)
		}
	}
	out, err := r.Kubectl(t.Context(), "-n", ns, "describe", "llmprovider", "p")
	if _, status, _ := strings.Cut(out, "Status:"); err != nil || strings.Contains(status, "sk-secret") || !strings.Contains(status, "warning: spec.tls.allowInsecureKey") {
		t.Errorf("kubectl describe says: %v\n%s", err, out)
	}
	if strings.Contains(r.log.String(), "sk-secret-value") {
		t.Error("the key is in the log")
	}
}

func rivals(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	// Of one second, so the name decides.
	r.apply(t, ns, providerYAML("a", "{host: x.example.com}")+providerYAML("b", "{host: x.example.com}"))
	r.await(t, provider, ns, "a", func(s *shown) bool { return s.condition("Accepted").Status != "" })
	loser, winner := "b", "a"
	if r.get(t, provider, ns, "b").CreationTimestamp.Time.Before(r.get(t, provider, ns, "a").CreationTimestamp.Time) {
		loser, winner = "a", "b"
	}
	r.await(t, provider, ns, loser, func(s *shown) bool { return s.refused("HostConflict", ns+"/"+winner) })
	r.await(t, provider, ns, winner, func(s *shown) bool { return s.accepted("") })
	r.delete(t, ns, "llmprovider", winner)
	r.await(t, provider, ns, loser, func(s *shown) bool { return s.accepted("") })
}

func providerComes(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, routeYAML("r", "{host: chat, rules: [{backendRefs: [{providerHost: p.example.com}]}]}"))
	r.await(t, route, ns, "r", func(s *shown) bool {
		return s.accepted("") && s.unresolved("ProviderNotFound", "spec.rules[0].backendRefs[0].providerHost: no LLMProvider")
	})
	r.apply(t, ns, providerYAML("p", "{host: p.example.com}"))
	r.await(t, route, ns, "r", (*shown).resolved)
	r.delete(t, ns, "llmprovider", "p")
	r.await(t, route, ns, "r", func(s *shown) bool { return s.unresolved("ProviderNotFound", "") })
}

func secretComes(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", "{host: a.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: dashscope}}}}}"))
	missing := func(s *shown) bool { return s.accepted("") && s.unresolved("SecretNotFound", "does not exist") }
	r.await(t, provider, ns, "p", missing)
	secret := secretOf(ns, "dashscope", corev1.SecretTypeOpaque, map[string]string{"apiKey": "sk-secret-value"})
	begin := time.Now()
	if err := r.admin.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.await(t, provider, ns, "p", (*shown).resolved)
	t.Logf("resolved after %v", time.Since(begin))
	if err := r.admin.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.await(t, provider, ns, "p", missing)
	if strings.Contains(r.log.String(), "sk-secret-value") {
		t.Error("the key is in the log")
	}
}

func secretJudged(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", "{host: a.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: s, key: k}}}}}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.unresolved("SecretNotFound", "") })
	secret := secretOf(ns, "s", corev1.SecretTypeOpaque, map[string]string{"other": "x"})
	if err := r.admin.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.unresolved("SecretNotFound", "has no key k") })
	for value, wanted := range map[string]func(*shown) bool{
		"two\nlines":  func(s *shown) bool { return s.unresolved("SecretInvalid", "key k of Secret") },
		"fine\n":      (*shown).resolved,
		"\n":          func(s *shown) bool { return s.unresolved("SecretInvalid", "key k of Secret") },
		"not a token": func(s *shown) bool { return s.unresolved("SecretInvalid", "key k of Secret") },
	} {
		secret.StringData = map[string]string{"k": value}
		if err := r.admin.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		r.await(t, provider, ns, "p", wanted)
	}
}

func certificateJudged(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", "{host: a.example.com, tls: {mode: MUTUAL, clientCertificateRef: {name: s}}}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.unresolved("SecretNotFound", "") })
	pair, err := standInPair()
	if err != nil {
		t.Fatal(err)
	}
	other, err := standInPair()
	if err != nil {
		t.Fatal(err)
	}
	secret := secretOf(ns, "s", corev1.SecretTypeTLS, map[string]string{"tls.crt": pair["tls.crt"].Reveal(), "tls.key": other["tls.key"].Reveal()})
	if err := r.admin.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.unresolved("SecretInvalid", "does not hold a certificate and its key") })
	secret.StringData = map[string]string{"tls.key": pair["tls.key"].Reveal()}
	if err := r.admin.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.await(t, provider, ns, "p", (*shown).resolved)
}

func foreignCondition(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("") })
	foreign := `{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"p"},"status":{"conditions":[` +
		`{"type":"Paid","status":"False","reason":"Overdue","message":"pay","lastTransitionTime":"2001-02-03T04:05:06Z"}]}}`
	if out, err := r.KubectlWith(t.Context(), foreign, "-n", ns, "apply", "--server-side", "--subresource=status", "--field-manager=billing", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.apply(t, ns, providerYAML("p", "{host: a.example.com, path: /a/../b}"))
	s := r.await(t, provider, ns, "p", func(s *shown) bool { return s.refused("InvalidValue", "") })
	if s.condition("Paid").Reason != "Overdue" || len(s.Status.Conditions) != 3 {
		t.Errorf("the conditions are %+v", s.Status.Conditions)
	}
}

func overwritten(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("") })
	if out, err := r.Kubectl(t.Context(), "-n", ns, "patch", "llmprovider", "p", "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":null}}`); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("") && s.resolved() })
}

func told(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	rules := strings.Repeat("{backendRefs: [{providerHost: a-provider-that-is-missing.example.com}]},", 20)
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}")+routeYAML("r", "{host: chat, rules: ["+rules+"]}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("") })
	r.apply(t, ns, providerYAML("p", "{host: a.example.com, path: /a/../b}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.refused("InvalidValue", "") })
	r.apply(t, ns, providerYAML("p", "{host: a.example.com, path: /a, configs: {defaultConfig: {openAIConfig: {apiKey: sk}}}}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("(InlineKey)") })
	r.eventually(t, "the events", func(ctx context.Context) error {
		got := r.eventsOf(ctx, t, provider, ns, "p")
		slices.Sort(got)
		if len(got) != 2 || !strings.HasPrefix(got[0], "Normal Accepted: the object is valid and in use; warning: ") || !strings.HasPrefix(got[1], "Warning InvalidValue: spec.path: ") {
			return fmt.Errorf("they are %q", got)
		}
		if got = r.eventsOf(ctx, t, route, ns, "r"); len(got) != 1 || !strings.HasPrefix(got[0], "Warning ProviderNotFound: spec.rules[0]") {
			return fmt.Errorf("those of the route are %q", got)
		}
		return nil
	})
}
