package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
)

func TestAProviderIsExportedToWhomItNames(t *testing.T) {
	for _, c := range []struct {
		to   []v1beta1.ExportTarget
		want bool
	}{
		{nil, false},
		{[]v1beta1.ExportTarget{"other"}, false},
		{[]v1beta1.ExportTarget{"."}, false},
		{[]v1beta1.ExportTarget{"other", "ns"}, true},
		{[]v1beta1.ExportTarget{"other", "*"}, true},
	} {
		o := exported(providerWith(t, "host: h.example.com"), c.to...)
		if (o != nil) != c.want {
			t.Errorf("%v: %v", c.to, o)
		}
	}
	o := *exported(providerWith(t, "host: h.example.com"), "*")
	if exportedTo(v1beta1.InstallationNamespace, &o) != nil {
		t.Error("a namespace has its own provider twice")
	}
	o.Namespace = "team-a"
	if exportedTo("ns", &o) != nil {
		t.Error("a team exports a provider")
	}
	if o := exported(providerWith(t, "host: chat.ns"), "*"); o.host != "chat" {
		t.Errorf("the host of a Service in the namespace it is exported to is %q", o.host)
	}
}

// What a team hears of an exported provider is its name, host and model.
func TestARouteToAnExportedProviderIsAsGoodAsToAnOwnOne(t *testing.T) {
	const rule = "spec: {host: chat, rules: [{backendRefs: [{providerHost: llm.example.com%s}]}]}"
	route := func(more string) change {
		return change{after: objectOf(t, "kind: LLMRoute\nmetadata: {name: r}\n"+strings.Replace(rule, "%s", more, 1))}
	}
	shared := exported(providerWith(t, "host: llm.example.com, port: 7443, path: /inner/path, tls: {sni: inner.example.com}, query: {inner: inner}, "+
		"configs: {defaultConfig: {openAIConfig: {model: qwen, apiKeyRef: {name: inner-secret}}}, routeSpecificConfigs: {inner-rule: {}}}"), "ns")
	said := strings.Join(judge([]*object{shared}, route("")).warnings, "\n")
	if strings.Contains(said, "ProviderNotFound") || strings.Contains(said, "inner") || !strings.Contains(said, "llm.example.com") {
		t.Errorf("it is said: %s", said)
	}
	if said := strings.Join(judge(nil, route("")).warnings, "\n"); !strings.Contains(said, "ProviderNotFound") {
		t.Errorf("without it: %s", said)
	}
	if v := judge([]*object{shared}, route(", hostRewrite: evil.example.com")); len(v.denied) != 1 || !strings.Contains(v.denied[0].Message, "sends a key with these calls") {
		t.Errorf("a route sends its key to another host: %+v", v)
	}

	own := change{after: providerWith(t, "host: llm.example.com")}
	if said := strings.Join(judge([]*object{shared}, own).warnings, "\n"); !strings.Contains(said, "is exported to this namespace: this one is used") || strings.Contains(said, "inner") {
		t.Errorf("an own provider of the same host: %s", said)
	}
	keyed := change{after: providerWith(t, "host: llm.example.com, "+refA)}
	if said := strings.Join(judge([]*object{shared}, keyed).warnings, "\n"); strings.Contains(said, "inner") {
		t.Errorf("an own provider with a key: %s", said)
	}
	plain := change{after: providerWith(t, "host: llm.example.com, tls: {mode: DISABLE}")}
	if said := strings.Join(judge([]*object{shared}, plain).warnings, "\n"); !strings.Contains(said, "in plain text") || strings.Contains(said, "inner") || strings.Contains(said, "443") {
		t.Errorf("an own provider of the same host without TLS: %s", said)
	}
	// A route that was good only as long as an own provider without a key had the host.
	rewriting := route(", hostRewrite: inside.example.com").after
	gone := judge([]*object{shared, rewriting}, change{before: own.after})
	if said := strings.Join(gone.warnings, "\n"); !strings.Contains(said, "this makes LLMRoute ns/r invalid") {
		t.Errorf("an own provider goes: %s", said)
	}
	// Two that are exported quarrel about the host once nobody of the namespace has it: that is not for its people.
	second := *shared
	second.Name, second.ref.Name = "q", "q"
	second.content.Providers = slices.Clone(second.content.Providers)
	second.content.Providers[0].Name = "q"
	if said := strings.Join(judge([]*object{shared, &second}, change{before: own.after}).warnings, "\n"); strings.Contains(said, "LLMProvider remora-system/q") {
		t.Errorf("what is wrong with a provider of others is said: %s", said)
	}
}

func TestWhoTakesAnExportedProviderAwayHearsFromWhom(t *testing.T) {
	users := func(host string) ([]string, error) {
		if host != "llm.example.com" {
			t.Errorf("it asks for %s", host)
		}
		return []string{"e", "d", "c", "b", "a", v1beta1.InstallationNamespace}, nil
	}
	to := func(host string, targets ...v1beta1.ExportTarget) *object {
		o := exported(providerWith(t, "host: "+host), "*")
		o.to = ""
		o.content.Providers[0].Spec.ExportTo = targets
		return o
	}
	for _, c := range []struct {
		before, after *object
		want          string
	}{
		{to("llm.example.com", "*"), nil, "LLMRoutes of other namespaces (5) use this provider for llm.example.com, and have none for it after this: a, b, c and 2 more;"},
		{to("llm.example.com", "*"), to("other.example.com", "*"), "LLMRoutes of other namespaces (5)"},
		{to("llm.example.com", "*"), to("llm.example.com", "a", "b", "c"), ": d, e;"},
		{to("llm.example.com", "a", "z"), to("llm.example.com", "z"), ": a;"},
		{to("llm.example.com", "*"), to("LLM.example.com", "*"), ""},
		{to("llm.example.com"), nil, ""},
		{nil, to("llm.example.com", "*"), ""},
	} {
		got, err := lossOf(&change{before: c.before, after: c.after}, users)
		if err != nil || !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%v: %q, want %q", err, got, c.want)
		}
	}
	if _, err := lossOf(&change{before: to("llm.example.com", "*")}, func(string) ([]string, error) { return nil, errors.New("away") }); err == nil {
		t.Error("it is not said that it is not known")
	}
}
