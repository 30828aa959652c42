package main

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
)

func exportComes(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	const installation = v1beta1.InstallationNamespace
	export := func(host, to string) {
		t.Helper()
		r.apply(t, installation, providerYAML("shared", "{host: "+host+", path: /inner, exportTo: ["+to+"], configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: inner-secret}}}}}"))
	}
	missing := func(s *shown) bool { return s.unresolved("ProviderNotFound", "") }
	r.apply(t, ns, routeYAML("r", "{host: chat, rules: [{backendRefs: [{providerHost: shared.example.com}]}]}"))
	r.await(t, route, ns, "r", missing)
	export("shared.example.com", "other, "+ns)
	r.await(t, route, ns, "r", (*shown).resolved) // though its Secret is missing: that is said where it is
	export("shared.example.com", "other")
	r.await(t, route, ns, "r", missing)
	export("shared.example.com", `"*"`)
	r.await(t, route, ns, "r", (*shown).resolved)
	export("elsewhere.example.com", `"*"`)
	r.await(t, route, ns, "r", missing)
	export("shared.example.com", `"*"`)
	r.await(t, route, ns, "r", (*shown).resolved)

	// An own provider goes first, and says so; its key would go where the route says.
	r.apply(t, ns, providerYAML("own", "{host: shared.example.com}"))
	s := r.await(t, provider, ns, "own", func(s *shown) bool {
		return s.accepted("is exported to this namespace: this one is used (HostConflict)")
	})
	if strings.Contains(s.condition("Accepted").Message, "inner") {
		t.Errorf("it says too much: %s", s.condition("Accepted").Message)
	}
	r.apply(t, ns, routeYAML("r", "{host: chat, rules: [{backendRefs: [{providerHost: shared.example.com, hostRewrite: evil.example.com}]}]}"))
	r.await(t, route, ns, "r", func(s *shown) bool { return s.accepted("") })
	r.delete(t, ns, "llmprovider", "own")
	r.await(t, route, ns, "r", func(s *shown) bool { return s.refused("InvalidValue", "hostRewrite") })
	r.delete(t, installation, "llmprovider", "shared")
	r.await(t, route, ns, "r", func(s *shown) bool { return s.accepted("") && missing(s) })
}

func TestOnlyWhoNamesAnExportedHostIsJudgedAnew(t *testing.T) {
	w := &statusWriter{namespaces: map[string]map[types.UID]*judged{}}
	for namespace, objects := range map[string][]string{
		"by-route":                    {"kind: LLMRoute\nmetadata: {name: r}\nspec: {host: chat, rules: [{backendRefs: [{providerHost: LLM.example.com}]}]}"},
		"by-host":                     {"kind: LLMRoute\nmetadata: {name: r}\nspec: {host: llm.example.com, rules: [{backendRefs: [{providerHost: x.example.com}]}]}"},
		"by-provider":                 {"kind: LLMProvider\nmetadata: {name: p}\nspec: {host: llm.example.com}"},
		"of-another":                  {"kind: LLMProvider\nmetadata: {name: p}\nspec: {host: x.example.com}"},
		"unreadable":                  {"kind: LLMProvider\nmetadata: {name: p}\nspec: {host: [1]}"},
		"by-route-but-not-exported":   {"kind: LLMRoute\nmetadata: {name: r}\nspec: {host: chat, rules: [{backendRefs: [{providerHost: llm.example.com}]}]}"},
		v1beta1.InstallationNamespace: {"kind: LLMProvider\nmetadata: {name: p}\nspec: {host: llm.example.com}"},
	} {
		w.namespaces[namespace] = map[types.UID]*judged{}
		for i, text := range objects {
			w.namespaces[namespace][types.UID(rune('a'+i))] = &judged{object: objectOf(t, text)}
		}
	}
	o := *exported(providerWith(t, "host: llm.example.com"), "*")
	o.to, o.content.Providers[0].Spec.ExportTo = "", []v1beta1.ExportTarget{"by-route", "by-host", "by-provider", "of-another", "unreadable", "unknown", v1beta1.InstallationNamespace}
	got := w.usersOf(&o)
	slices.Sort(got)
	if want := []string{"by-host", "by-provider", "by-route", "unreadable"}; !slices.Equal(got, want) {
		t.Errorf("judged anew are %v, want %v", got, want)
	}
}
