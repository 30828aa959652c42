package main

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
)

func objectOf(tb testing.TB, text string) *object {
	tb.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		tb.Fatalf("%v\n%s", err, text)
	}
	u.SetAPIVersion("istio.alibabacloud.com/v1beta1")
	u.SetNamespace("ns")
	return newObject(u)
}

// A random object, out of few names, so that much collides. Now and then it is broken, in itself or in its form.
func anObject(t *testing.T, r *rand.Rand, provider bool, name string) *object {
	t.Helper()
	pick := func(all ...string) string { return all[r.IntN(len(all))] }
	host := func() string {
		if r.IntN(40) == 0 {
			return pick("http://a/", "*.example.com", "a.", "", "b:80", "a_b")
		}
		return pick("a", "A", "a.ns", "b.ns.svc", "b", "c", "c.other", "c.other.svc.cluster.local", "x.example.com", "y.example.com", "z.example.com", "d", "e", "f.svc", "ns", "g", "h")
	}
	rule := func() string { return pick("vip", "tier", "default", "one", "two", "three", "four") }
	at := fmt.Sprintf("2026-01-01T00:00:%02dZ", r.IntN(4))
	if r.IntN(60) == 0 {
		return objectOf(t, fmt.Sprintf("kind: %s\nmetadata: {name: %s}\nspec: {host: [%q], rules: 7}", map[bool]string{true: "LLMProvider", false: "LLMRoute"}[provider], name, host()))
	}
	var b strings.Builder
	if provider {
		fmt.Fprintf(&b, "kind: LLMProvider\nmetadata: {name: %s, creationTimestamp: %q}\nspec:\n  host: %q\n", name, at, host())
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "  workloadSelector: {labels: {%s: %s}}\n", pick("app", "app", "tier"), pick("one", "two"))
		}
		fmt.Fprintf(&b, "  configs:\n    defaultConfig: {openAIConfig: {model: %s%s}}\n", pick("m1", "m2"), pick("", ", apiKeyRef: {name: s}", ", apiKey: k"))
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    routeSpecificConfigs:\n      %s: {openAIConfig: {model: m3}}\n", rule())
		}
		return objectOf(t, b.String())
	}
	fmt.Fprintf(&b, "kind: LLMRoute\nmetadata: {name: %s, creationTimestamp: %q}\nspec:\n  host: %q\n  rules:\n", name, at, host())
	for range 1 + r.IntN(3) {
		fmt.Fprintf(&b, "  - name: %q\n    backendRefs:\n", pick(rule(), rule(), ""))
		for range 1 + r.IntN(2) {
			fmt.Fprintf(&b, "    - {providerHost: %q%s}\n", host(), pick("", "", "", ", hostRewrite: other.example.com"))
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "    matches: [{headers: {user: {exact: %s}}}]\n", pick("one", "two"))
		}
	}
	return objectOf(t, b.String())
}

// exported gives a provider as namespace ns has it where it is one of the installation's, which exports it to these namespaces.
func exported(o *object, to ...v1beta1.ExportTarget) *object {
	p := *o
	p.Namespace, p.ref.Namespace = v1beta1.InstallationNamespace, v1beta1.InstallationNamespace
	p.content.Providers = slices.Clone(p.content.Providers)
	p.content.Providers[0].Namespace, p.content.Providers[0].Spec.ExportTo = v1beta1.InstallationNamespace, to
	return exportedTo("ns", &p)
}

// withoutForms takes away what may differ: which of a host's forms a sentence shows, and with it the order of sentences.
func withoutForms(v verdict) verdict {
	short := strings.NewReplacer("a.ns", "a", "b.ns.svc", "b", "c.other.svc.cluster.local", "c.other")
	for i, w := range v.warnings {
		v.warnings[i] = short.Replace(w)
	}
	slices.Sort(v.warnings)
	return v
}

func TestTheNeighboursOfAChangeAreAllThatDecideOnIt(t *testing.T) {
	const rounds = 200
	left, denials, caused := 0, 0, 0
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 3))
		var others []*object
		for i := range r.IntN(30) {
			others = append(others, anObject(t, r, i%2 == 0, fmt.Sprintf("o%d", i)))
		}
		for i := range r.IntN(6) {
			if o := anObject(t, r, true, fmt.Sprintf("e%d", i)); o.isProvider() {
				others = append(others, exported(o, "ns"))
			}
		}
		c := change{}
		provider := r.IntN(2) == 0
		if r.IntN(4) > 0 {
			c.before = anObject(t, r, provider, "o1c")
		}
		if c.before == nil || r.IntN(4) > 0 {
			c.after = anObject(t, r, provider, "o1c")
		}
		left += len(others) - len(neighbours(others, c.before, c.after))
		want, got := withoutForms(judgeAmong(others, c)), withoutForms(judge(others, c))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: among its neighbours:\n%+v\namong all:\n%+v", seed, got, want)
		}
		denials += len(want.denied)
		for _, w := range want.warnings {
			if strings.HasPrefix(w, "LLM") || strings.HasPrefix(w, "this makes") {
				caused++
			}
		}
	}
	if left < rounds || denials < rounds/10 || caused < rounds/10 {
		t.Errorf("too little was tried: %d objects left out, %d reasons to deny, %d problems of others", left, denials, caused)
	}
}

// A namespace with many objects, in which one is edited: a route, and the provider that only its route uses.
func BenchmarkJudge(b *testing.B) {
	const n = 5000
	var others []*object
	for i := range n {
		others = append(others,
			objectOf(b, fmt.Sprintf("kind: LLMProvider\nmetadata: {name: p%d}\nspec: {host: llm-%d.example.com}", i, i)),
			objectOf(b, fmt.Sprintf("kind: LLMRoute\nmetadata: {name: r%d}\nspec: {host: route-%d, rules: [{name: vip, matches: [{headers: {user: {exact: vip}}}], backendRefs: [{providerHost: llm-%d.example.com}]}, {backendRefs: [{providerHost: llm-0.example.com}]}]}", i, i, i)))
	}
	edit := func(i int, from, to string) change {
		c := change{before: others[i]}
		doc, err := yaml.Marshal(map[string]any{"kind": c.before.ref.Kind, "metadata": map[string]any{"name": c.before.Name}, "spec": c.before.spec()})
		if err != nil {
			b.Fatal(err)
		}
		c.after = objectOf(b, strings.Replace(string(doc), from, to, 1))
		return c
	}
	for name, c := range map[string]change{
		"a route":                        edit(4001, "exact: vip", "exact: gold"),
		"a provider":                     edit(4000, "host: llm-2000.example.com", "host: llm-2000.example.com\n  path: /v2/chat/completions"),
		"a provider that all routes use": edit(0, "host: llm-0.example.com", "host: llm-0.example.com\n  path: /v2/chat/completions"),
	} {
		rest := slices.DeleteFunc(slices.Clone(others), func(o *object) bool { return o == c.before })
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if v := judge(rest, c); len(v.denied) > 0 || len(v.warnings) == 0 {
					b.Fatal(v)
				}
			}
		})
	}
}

func (o *object) spec() any {
	if o.isProvider() {
		return o.content.Providers[0].Spec
	}
	return o.content.Routes[0].Spec
}
