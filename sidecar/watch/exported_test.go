package watch

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// wireKeys is the Secret of keys with these entries, as the API server sends it.
func wireKeys(t *testing.T, entries map[string]string) *wireObject {
	t.Helper()
	data := map[string][]byte{}
	for entry, value := range entries {
		data[entry] = []byte(value)
	}
	raw, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		t.Fatal(err)
	}
	o := &wireObject{raw: raw}
	o.Namespace, o.Name = "team", v1beta1.KeysSecret
	return o
}

// exportedEntry is a provider with the key sk-shared, in the Secret named.
func exportedEntry(uid, host, secret string) string {
	return fmt.Sprintf(`{"provider":{"metadata":{"name":"says-nothing","namespace":"kube-system","uid":%q,"creationTimestamp":"2026-01-02T03:04:05Z"},
		"spec":{"host":%q,"configs":{"defaultConfig":{"openAIConfig":{"apiKeyRef":{"name":%q}}}}}},"secrets":{%q:{"apiKey":%q}}}`,
		uid, host, secret, secret, base64.StdEncoding.EncodeToString([]byte("sk-shared")))
}

// tableOf compiles what the Secret of keys holds, after before.
func tableOf(t *testing.T, h *history, entries map[string]string) (*routing.Table, []finding) {
	t.Helper()
	all := &set{namespace: "team", keysIn: v1beta1.KeysSecret, names: map[routing.Ref]named{}}
	docs, _ := secretsIn(wireKeys(t, entries))
	for i := range docs {
		all.add(&docs[i], place{}, h)
	}
	return h.compile(all, &routing.Workload{Namespace: "team"})
}

func sharedKey(t *testing.T, table *routing.Table, host string) string {
	t.Helper()
	h := table.Host([]byte(host))
	if h == nil || h.Refusal != nil || h.Rules[0].Levels[0].Backends[0].Target == nil {
		t.Fatalf("%s is not served: %+v", host, h)
	}
	return h.Rules[0].Levels[0].Backends[0].Target.Keys[0].Key.Reveal()
}

func TestAnExportedProviderIsTheInstallationsWhateverItsEntrySays(t *testing.T) {
	// The namespace's own Secret s is another one, and two providers name the same.
	table, findings := tableOf(t, &history{}, map[string]string{
		"_provider_shared": exportedEntry("1", "a.example", "s"), "_provider_again": exportedEntry("2", "b.example", "s"), "s_apiKey": "sk-own", "_trusted-ca.crt": "",
	})
	if len(findings) > 0 {
		t.Error(findings)
	}
	for _, host := range []string{"a.example", "b.example"} {
		if key := sharedKey(t, table, host); key != "sk-shared" {
			t.Errorf("%s is called with another key", host)
		}
	}
	if ref := table.Host([]byte("a.example")).Rules[0].Owner.String(); ref != "LLMProvider remora-system/shared" {
		t.Errorf("a.example is of %s", ref)
	}
}

func TestABrokenEntryIsToldAndStopsNoOther(t *testing.T) {
	for name, broken := range map[string]string{
		"no JSON": `{"provider":{"spec":{"host":"sk-secret"`, "a list": `[]`, "null": `null`, "nothing": ``, "no provider": `{"secrets":{}}`,
		"a list as the provider": `{"provider":[]}`, "a number as a key": `{"provider":{"spec":{"host":"b.example"}},"secrets":{"s":{"k":7}}}`,
		"a name that is a map": `{"provider":{"metadata":{"name":{}}}}`, "deep": `{"provider":` + strings.Repeat("[", 100000),
		"of another schema": `{"provider":{"spec":{"host":"b.example","tomorrow":true}}}`, "no spec": `{"provider":{}}`,
		"invalid": `{"provider":{"spec":{"host":"b.example","path":"no slash"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			table, findings := tableOf(t, &history{}, map[string]string{"_provider_good": exportedEntry("1", "a.example", "s"), "_provider_broken": broken})
			if sharedKey(t, table, "a.example") != "sk-shared" {
				t.Error("the other one has no key")
			}
			if len(findings) == 0 || findings[0].Object.String() != "LLMProvider remora-system/broken" || findings[0].Severity != routing.Invalid {
				t.Errorf("it is told as %v", findings)
			}
			for _, f := range findings {
				if strings.Contains(f.String(), "sk-") {
					t.Error("a key is told")
				}
			}
			if name == "no spec" {
				return // and so no host
			}
			if h := table.Host([]byte("b.example")); h == nil || h.Refusal == nil || h.Refusal.Code != routing.InvalidConfiguration {
				t.Errorf("a host that may be its passes: %+v", h)
			}
		})
	}
}

func TestABadEditOfAnExportedProviderKeepsItsLastGoodVersion(t *testing.T) {
	h := &history{}
	good := exportedEntry("1", "a.example", "s")
	tableOf(t, h, map[string]string{"_provider_p": good})
	bad := strings.Replace(good, `"spec":{`, `"spec":{"path":"no slash",`, 1)
	table, findings := tableOf(t, h, map[string]string{"_provider_p": bad})
	if sharedKey(t, table, "a.example") != "sk-shared" || len(findings) != 1 || !strings.Contains(findings[0].Message, "keeps running") {
		t.Errorf("%v", findings)
	}
	// Another one of that name has no earlier version, and is not the namespace's own of that name.
	table, _ = tableOf(t, h, map[string]string{"_provider_p": strings.Replace(bad, `"uid":"1"`, `"uid":"2"`, 1)})
	if r := table.Host([]byte("a.example")).Refusal; r == nil || r.Code != routing.InvalidConfiguration {
		t.Errorf("it is served: %+v", r)
	}
	// Withdrawn, it is gone.
	if table, _ = tableOf(t, h, nil); table.Host([]byte("a.example")) != nil {
		t.Error("it stays")
	}
}

func TestWhatAnExportedProviderLacksIsForThoseWhoRunRemora(t *testing.T) {
	entry := exportedEntry("1", "a.example", "s")
	cut := entry[:strings.Index(entry, `,"secrets"`)] + "}"
	table, _ := tableOf(t, &history{}, map[string]string{"_provider_p": cut})
	r := table.Host([]byte("a.example")).Rules[0].Levels[0].Backends[0].Refusal
	if r == nil || r.Code != routing.SecretNotFound || !strings.Contains(r.Message, "ask those who run Remora") || strings.Contains(r.Message, v1beta1.KeysSecret) {
		t.Errorf("%+v", r)
	}
	withheld := `{"withheld":true,"provider":{"metadata":{"uid":"1"},"spec":{"host":"a.example"}}}`
	h := &history{}
	tableOf(t, h, map[string]string{"_provider_p": entry})
	table, findings := tableOf(t, h, map[string]string{"_provider_p": withheld})
	if r := table.Host([]byte("a.example")).Refusal; r == nil || r.Code != routing.InvalidConfiguration || !strings.Contains(r.Message, "KeysTooLarge") {
		t.Errorf("%+v", r)
	}
	if len(findings) != 1 || findings[0].Code != routing.KeysTooLarge {
		t.Errorf("%v", findings)
	}
	if table, _ = tableOf(t, h, map[string]string{"_provider_p": entry}); sharedKey(t, table, "a.example") != "sk-shared" {
		t.Error("it does not come back")
	}
}
