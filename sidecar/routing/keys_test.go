package routing_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// keyed compiles a provider with these lines in its spec, a route with a rule vip, and Secrets of one key each, as "name value"; for a
// pod with app=sleep.
func keyed(t *testing.T, spec string, secrets ...string) *routing.Table {
	t.Helper()
	text := `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: p}
spec:
  host: llm.example.com
  ` + strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  ") + `
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: r}
spec:
  host: llm.example.com
  rules:
  - {name: vip, matches: [{model: {exact: vip}}], backendRefs: [{providerHost: llm.example.com}]}
  - {backendRefs: [{providerHost: llm.example.com}]}
`
	for _, s := range secrets {
		name, value, _ := strings.Cut(s, " ")
		text += fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData: {apiKey: %s}\n", name, value)
	}
	table, _ := routing.Compile(decodeAll(t, []byte(text)), &routing.Workload{Namespace: "default", Labels: map[string]string{"app": "sleep"}})
	return table
}

func config(openAI string) string {
	return "configs: {defaultConfig: {openAIConfig: {" + openAI + "}}}"
}

// Calls under way ask the table of the moment for their key, by the name that it had in theirs.
func TestAKeyIsTakenAwayWithItsNameOrItsValueAndWithNothingElse(t *testing.T) {
	provider := routing.Ref{Kind: v1beta1.KindLLMProvider, Namespace: "default", Name: "p"}
	for _, c := range []struct {
		what, name, want string // want: the value; empty: taken away
		table            *routing.Table
	}{
		{"as it was", "secret a/apiKey", "sk-a", keyed(t, config("apiKeyRef: {name: a}"), "a sk-a")},
		{"one of several", "secret a/apiKey", "sk-a", keyed(t, config("apiKeyRefs: [{name: b}, {name: a, key: apiKey}]"), "a sk-a", "b sk-b")},
		{"replaced", "secret a/apiKey", "sk-new", keyed(t, config("apiKeyRef: {name: a}"), "a sk-new")},
		{"the Secret is gone", "secret a/apiKey", "", keyed(t, config("apiKeyRefs: [{name: b}, {name: a}]"), "b sk-b")},
		{"the value is empty", "secret a/apiKey", "", keyed(t, config("apiKeyRefs: [{name: b}, {name: a}]"), `a ""`, "b sk-b")},
		{"not named any more", "secret a/apiKey", "", keyed(t, config("apiKeyRefs: [{name: b}]"), "a sk-a", "b sk-b")},
		{"the provider is for other pods", "secret a/apiKey", "", keyed(t, "workloadSelector: {labels: {app: other}}\n"+config("apiKeyRef: {name: a}"), "a sk-a")},
		{"no weight", "secret a/apiKey", "sk-a", keyed(t, config("apiKeyRefs: [{name: b, weight: 1}, {name: a, weight: 0}]"), "a sk-a", "b sk-b")},
		{"no weight, and the other is gone", "secret a/apiKey", "sk-a", keyed(t, config("apiKeyRefs: [{name: b, weight: 1}, {name: a, weight: 0}]"), "a sk-a")},
		{"a mistake elsewhere in the provider", "secret a/apiKey", "sk-a", keyed(t, "path: none\n"+config("apiKeyRef: {name: a}"), "a sk-a")},
		{"for a rule that there is not", "secret a/apiKey", "sk-a", keyed(t, "configs: {routeSpecificConfigs: {gone: {openAIConfig: {apiKeyRef: {name: a}}}}}", "a sk-a")},
		{"in the object", "inline", "sk-a", keyed(t, config("apiKey: sk-a"))},
		{"in the object, for a rule", "inline vip", "sk-b", keyed(t, "configs: {defaultConfig: {openAIConfig: {apiKey: sk-a}}, routeSpecificConfigs: {vip: {openAIConfig: {apiKey: sk-b}}}}")},
		{"that of a rule does not replace the other", "inline", "sk-a", keyed(t, `configs: {defaultConfig: {openAIConfig: {apiKey: sk-a}}, routeSpecificConfigs: {"": {openAIConfig: {apiKey: sk-b}}, vip: {openAIConfig: {apiKey: sk-b}}}}`)},
		{"moved out of the object", "inline", "", keyed(t, config("apiKeyRef: {name: a}"), "a sk-a")},
	} {
		key, ok := credential(c.table, provider, c.name)
		if ok != (c.want != "") || key.Reveal() != c.want {
			t.Errorf("%s: %s is there: %t, with another value than wanted: %t", c.what, c.name, ok, key.Reveal() != c.want)
		}
	}
}

// What a call has in its hand leads back to the same key.
func TestEveryKeyOfATargetIsFoundByItsName(t *testing.T) {
	n := 0
	for name, content := range everything(t) {
		for _, workload := range []*routing.Workload{nil, {Namespace: "default", Labels: map[string]string{"app": "sleep"}}} {
			table, _ := routing.Compile(decodeAll(t, content), workload)
			for target := range table.Targets() {
				for _, k := range target.Keys {
					n++
					if key, ok := credential(table, target.Provider, k.Name); !ok || key != k.Key {
						t.Errorf("%s: %s of %s is another key, or none", name, k.Name, target.Provider)
					}
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d keys", n)
	}
}

func TestAGenerationChangesWithAllThatIsSaidOfKeys(t *testing.T) {
	secrets := []string{"a sk-a", "b sk-b"}
	tables := map[string]*routing.Table{
		"one key":           keyed(t, config("apiKeyRef: {name: a}"), secrets...),
		"equal shares":      keyed(t, config("apiKeyRefs: [{name: a}, {name: b}]"), secrets...),
		"other shares":      keyed(t, config("apiKeyRefs: [{name: a, weight: 3}, {name: b, weight: 1}]"), secrets...),
		"shares exchanged":  keyed(t, config("apiKeyRefs: [{name: a, weight: 1}, {name: b, weight: 3}]"), secrets...),
		"keys exchanged":    keyed(t, config("apiKeyRefs: [{name: a}, {name: b}]"), "a sk-b", "b sk-a"),
		"one rotated":       keyed(t, config("apiKeyRefs: [{name: a}, {name: b}]"), "a sk-a", "b sk-c"),
		"users":             keyed(t, "allowedUIDs: [1000]\n"+config("apiKeyRef: {name: a}"), secrets...),
		"other users":       keyed(t, "allowedUIDs: [1000, 1]\n"+config("apiKeyRef: {name: a}"), secrets...),
		"a grace period":    keyed(t, "revocationGracePeriod: 1s\n"+config("apiKeyRef: {name: a}"), secrets...),
		"another":           keyed(t, "revocationGracePeriod: 2s\n"+config("apiKeyRef: {name: a}"), secrets...),
		"no grace":          keyed(t, "revocationGracePeriod: 0s\n"+config("apiKeyRef: {name: a}"), secrets...),
		"of the other name": keyed(t, config("apiKeyRef: {name: b}"), "b sk-a"),
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		g := tables[name].Generation()
		if other, ok := seen[g]; ok {
			t.Errorf("%s and %s have one generation", name, other)
		}
		seen[g] = name
	}
}

func TestOnlyTheUsersThatAreNamedMayUseAProvider(t *testing.T) {
	target := func(spec string) *routing.Target {
		return keyed(t, spec).Host([]byte("llm.example.com")).Rules[0].Levels[0].Backends[0].Target
	}
	for spec, want := range map[string]string{
		"{}":                                 "0 1000 1001 4294967294",
		"allowedUIDs: [1001, 0, 1001]":       "0 1001",
		"allowedUIDs: [4294967294]":          "4294967294",
		"allowedUIDs: [1000, 4294967294, 5]": "1000 4294967294",
	} {
		var admitted []string
		for _, uid := range []uint32{0, 1000, 1001, 4294967294} {
			if target(strings.TrimSuffix(spec, "{}")).Admits(uid) {
				admitted = append(admitted, fmt.Sprint(uid))
			}
		}
		if got := strings.Join(admitted, " "); got != want {
			t.Errorf("%s admits %s", spec, got)
		}
	}
}

// A problem is worded by the first that is wrong, and apps read it in refusals: it must be the same each time.
func TestARefusalIsWordedTheSameEachTime(t *testing.T) {
	refusal := func() string {
		return keyed(t, config("apiKey: sk-a, apiKeyRef: {name: a}, apiKeyRefs: [{name: a}, {name: a}]")+"\nexportTo: [shop, Shop]\nallowedUIDs: [-1]").Host([]byte("llm.example.com")).Rules[0].Levels[0].Backends[0].Refusal.Message
	}
	for want, n := refusal(), 0; n < 50; n++ {
		if got := refusal(); got != want {
			t.Fatalf("%s\nand then\n%s", want, got)
		}
	}
}

// A team's pods go on refusing what they were allowed to call, until they are restarted.
func TestAHostThatIsNoLongerExportedStaysOwned(t *testing.T) {
	exporting := func(to string) *routing.Table {
		return compiledFor(t, "shop", `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: p, namespace: remora-system}
spec: {host: llm.example.com, exportTo: [`+to+`], configs: {defaultConfig: {openAIConfig: {apiKey: sk-fake}}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: own, namespace: shop}
spec: {host: own.example.com}
`)
	}
	before, after := exporting("shop"), exporting("billing").Retaining(exporting("shop"))
	wantFates(t, before, map[string]string{"llm.example.com": "served", "own.example.com": "served"})
	wantFates(t, after, map[string]string{"llm.example.com": "HostRetired", "own.example.com": "served"})
	wantFates(t, exporting("billing"), map[string]string{"llm.example.com": "foreign"})
	wantFates(t, exporting("shop").Retaining(after), map[string]string{"llm.example.com": "served"})
	provider := routing.Ref{Kind: v1beta1.KindLLMProvider, Namespace: "remora-system", Name: "p"}
	if _, ok := credential(before, provider, "inline"); !ok {
		t.Error("its key is not there")
	}
	if _, ok := credential(after, provider, "inline"); ok {
		t.Error("its key is still there")
	}
}

func compiledFor(t *testing.T, namespace, text string) *routing.Table {
	t.Helper()
	table, _ := routing.Compile(decodeAll(t, []byte(text)), &routing.Workload{Namespace: namespace})
	return table
}

func credential(t *routing.Table, provider routing.Ref, name string) (routing.Key, bool) {
	key, ok := maps.Collect(t.Credentials())[routing.CredentialID{Provider: provider, Name: name}]
	return key, ok
}
