package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// providerWith gives a provider whose spec has these fields, in YAML's short form.
func providerWith(t *testing.T, spec string) *object {
	t.Helper()
	return objectOf(t, "kind: LLMProvider\nmetadata: {name: p}\nspec: {"+spec+"}\n")
}

// Fields of a provider with a key, for short.
const (
	refA      = "configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: a}}}}"
	refB      = "configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: b}}}}"
	refAForX  = "configs: {routeSpecificConfigs: {x: {openAIConfig: {apiKeyRef: {name: a, key: apiKey}}}}}"
	refsAB    = "configs: {defaultConfig: {openAIConfig: {apiKeyRefs: [{name: a, weight: 1}, {name: b, weight: 2}]}}}"
	refsBA    = "configs: {defaultConfig: {openAIConfig: {apiKeyRefs: [{name: b}, {name: a}]}}}"
	otherOfA  = "configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: a, key: other}}}}"
	inline    = "configs: {defaultConfig: {openAIConfig: {apiKey: sk-1}}}"
	inlineNew = "configs: {defaultConfig: {openAIConfig: {apiKey: sk-2}}}"
	inlineX   = "configs: {routeSpecificConfigs: {x: {openAIConfig: {apiKey: sk-1}}}}"
	mutualA   = "tls: {mode: MUTUAL, clientCertificateRef: {name: a}}"
	tokenIsA  = "configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: a, key: tls.key}}}}"
	unreadSpc = "host: [h], "
)

func TestWhatAWriteNeedsIsEveryKeyThatItWouldSendAnew(t *testing.T) {
	const h = "host: h.example.com"
	for _, c := range []struct{ name, before, after, want string }{
		{"no key", "", h, ""},
		{"created with a reference", "", h + ", " + refA, "a"},
		{"created with several", "", h + ", " + refsAB + ", " + mutualA, "a b"}, // of a, only one question
		{"created with a key in its text", "", h + ", " + inline, ""},
		{"unchanged", h + ", " + refA, h + ", " + refA, ""},
		{"a reference is added", h, h + ", " + refA, "a"},
		{"a reference goes", h + ", " + refA, h, ""},
		{"another Secret", h + ", " + refA, h + ", " + refB, "b"},
		{"another key of it", h + ", " + refA, h + ", " + otherOfA, "a"},
		{"a second one", h + ", " + refA, h + ", " + refsAB, "b"},
		{"other weights and order", h + ", " + refsAB, h + ", " + refsBA, ""},
		{"moved to a rule", h + ", " + refA, h + ", " + refAForX, ""},
		{"a certificate's key as a token", h + ", " + mutualA, h + ", " + mutualA + ", " + tokenIsA, "a"},
		{"a token as a certificate", h + ", " + refA, h + ", " + refA + ", " + mutualA, "a"},
		{"model and selector", h + ", " + refA, h + ", workloadSelector: {labels: {a: b}}, allowedUIDs: [1], trafficPolicy: {}, " + refA, ""},

		{"another host", h + ", " + refsAB, "host: evil.example.com, " + refsAB, "a b"},
		{"another host and no key", h, "host: evil.example.com", ""},
		{"the same host in capitals", h + ", " + refA, "host: H.example.com, " + refA, ""},
		{"another port", h + ", " + refA, h + ", port: 8443, " + refA, "a"},
		{"the port that it was", h + ", " + refA, h + ", port: 443, " + refA, ""},
		{"TLS as it was", h + ", " + refA, h + ", tls: {mode: SIMPLE}, " + refA, ""},
		{"no TLS", h + ", " + refA, h + ", tls: {mode: DISABLE, allowInsecureKey: true}, " + refA, "a"},
		{"the risk is taken", h + ", tls: {mode: DISABLE}, " + refA, h + ", tls: {mode: DISABLE, allowInsecureKey: true}, " + refA, "a"},
		{"another name in the certificate", h + ", " + refA, h + ", tls: {sni: evil.example.com}, " + refA, "a"},
		{"other authorities", h + ", " + refA, h + ", tls: {caBundle: bm8=}, " + refA, "a"},
		{"no client certificate", h + ", " + mutualA + ", " + refB, h + ", " + refB, "b"},
		{"another path", h + ", " + refA, h + ", path: /log, " + refA, "a"},
		{"the path that it was", h + ", " + refA, h + ", path: /v1/chat/completions, " + refA, ""},
		{"another header", h + ", " + refA, h + ", authScheme: api-key, " + refA, "a"},
		{"the header that it was", h + ", " + refA, h + ", authScheme: Bearer, " + refA, ""},
		{"another query", h + ", " + refA, h + ", query: {to: evil}, " + refA, "a"},
		{"exported", h + ", " + refA, h + ", exportTo: [shop], " + refA, "a"},
		{"exported to one more", h + ", exportTo: [shop], " + refA, h + ", exportTo: [shop, evil], " + refA, "a"},
		{"exported to all", h + ", exportTo: [shop], " + refA, h + `, exportTo: ["*"], ` + refA, "a"},
		{"exported to fewer", h + ", exportTo: [shop, billing], " + refA, h + ", exportTo: [billing], " + refA, ""},
		{"exported to one of all", h + `, exportTo: ["*"], ` + refA, h + ", exportTo: [billing], " + refA, ""},
		{"exported to its own", h + ", " + refA, h + `, exportTo: ["."], ` + refA, ""},

		{"the key in the text stays", h + ", " + inline, "host: evil.example.com, " + inline, "(the provider)"},
		{"the key in the text stays, for a rule", h + ", " + inline, "host: evil.example.com, " + inlineX, "(the provider)"},
		{"the key in the text is another", h + ", " + inline, "host: evil.example.com, " + inlineNew, ""},
		{"the key in the text goes", h + ", " + inline, "host: evil.example.com", ""},
		{"the key in the text, and nothing moves", h + ", " + inline, h + ", revocationGracePeriod: 0s, " + inline, ""},

		{"it could not be read before", unreadSpc + refA, h + ", " + refA, "a"},
		{"it could not be read before, with a key in its text", unreadSpc + inline, h + ", " + inline, "(the provider)"},
	} {
		change := change{after: providerWith(t, c.after)}
		if c.before != "" {
			change.before = providerWith(t, c.before)
		}
		if !change.after.isProvider() {
			t.Fatalf("%s: %v", c.name, change.after.content.Unreadable)
		}
		var got []string
		for _, n := range needsOf(&change) {
			got = append(got, n.secret)
			if n.secret == "" {
				got[len(got)-1] = "(the provider)"
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: it needs %q, want %q", c.name, got, c.want)
		}
		change.sameSpec = true
		if got := needsOf(&change); got != nil {
			t.Errorf("%s, and the same spec: it needs %v", c.name, got)
		}
	}
	if got := needsOf(&change{before: providerWith(t, h+", "+refA)}); got != nil {
		t.Errorf("a delete needs %v", got)
	}
	if got := needsOf(&change{after: objectOf(t, "kind: LLMRoute\nmetadata: {name: r}\nspec: {host: r, rules: [{backendRefs: [{providerHost: h.example.com}]}]}")}); got != nil {
		t.Errorf("a route needs %v", got)
	}
}

func TestTheMostKeysThatAProviderCanNameAreAskedForOnceEach(t *testing.T) {
	var b strings.Builder
	b.WriteString("host: h.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: a}}}, routeSpecificConfigs: {")
	for rule := range 256 {
		fmt.Fprintf(&b, "r%d: {openAIConfig: {apiKeyRefs: [{name: s%d}, {name: s%d, key: other}, {name: shared}]}},", rule, rule, rule)
	}
	c := change{after: providerWith(t, b.String()+"}}")}
	if needs := needsOf(&c); len(needs) != 258 {
		t.Errorf("%d questions", len(needs))
	}
}
