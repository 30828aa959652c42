package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

const (
	keyOfDashscope = "sk-walk-dashscope"
	keyOfMoonshot  = "sk-walk-moonshot"
)

// sample is a file of the samples as a user applies it, with the keys filled in.
func sample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../config/samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("${DASHSCOPE_API_KEY}", keyOfDashscope, "${MOONSHOT_API_KEY}", keyOfMoonshot).Replace(string(text)) + "\n---\n"
}

// warns demands a warning, as kubectl shows it.
func warns(t *testing.T, out, want string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Warning: ") && strings.Contains(line, want) {
			return
		}
	}
	t.Errorf("there is no warning %q:\n%s", want, out)
}

// walk is what a user has in front of them: a namespace, a sidecar that follows it, and the providers.
type walk struct {
	*tenant
	*sidecar
	providers *llmserver.Server
}

// What a user gets: the samples of ASM as they are, applied, told about, refused, changed and deleted. Each step goes on
// from where the one before it ended, if it did so well.
func TestTheWalkThroughTheSamplesOfASM(t *testing.T) {
	p := newProvider(t, llmserver.Options{
		Addr: "127.0.0.1:443", PlainAddr: "127.0.0.1:80", Keys: map[string]string{dashscope: keyOfDashscope, moonshot: keyOfMoonshot},
	})
	n := newTenant(t, installed)
	w := walk{n, n.sidecar(t, p), p}
	_ = t.Run("WhatIsIncompleteWarnsAndSaysWhatIsMissing", w.whatIsIncompleteWarns) &&
		t.Run("CompleteItServesWithKeysAndModels", w.completeItServes) &&
		t.Run("WhatIsWrongIsRefusedWithFieldAndRemedy", w.whatIsWrongIsRefused) &&
		t.Run("KubectlExplainTeaches", w.kubectlExplainTeaches) &&
		t.Run("APlanOfSharesIsWhatTheCallsDo", w.aPlanOfShares) &&
		t.Run("APlanOfRulesIsWhatTheCallsDo", w.aPlanOfRules) &&
		t.Run("AnEditThatBreaksAnotherObjectIsToldThere", w.anEditThatBreaksAnother) &&
		t.Run("ADeleteIsPlannedToo", w.aDeleteIsPlanned) &&
		t.Run("AKeyInASecretIsUsedAndNotShown", w.aKeyInASecret)
}

// In the least helpful order, as kubectl apply -f of a folder may have it.
func (w walk) whatIsIncompleteWarns(t *testing.T) {
	out := w.apply(t, sample(t, "asm/demo-llm-server.yaml")+sample(t, "asm/dashscope-route.yaml"))
	warns(t, out, "spec.rules[0].backendRefs[1].providerHost: no LLMProvider with host api.moonshot.cn")
	w.awaitOutput(t, "demo-llm-server demo-llm-server 1 True False", "get", "llmroutes")
	told := w.awaitOutput(t, "Warning ProviderNotFound", "describe", "llmroute", "demo-llm-server") // the event
	if c := fields(told); !strings.Contains(c, "Message: spec.rules[0].backendRefs[0].providerHost: no LLMProvider with host dashscope.aliyuncs.com") {
		t.Errorf("the condition does not say what is missing:\n%s", told)
	}
	w.awaitConfig(t, "demo-llm-server")
	if a := w.mustAsk(t, "demo-llm-server"); a.status != http.StatusServiceUnavailable || a.code != "ProviderNotFound" {
		t.Errorf("a call to a provider that is not there yet: %+v", a)
	}
}

func (w walk) completeItServes(t *testing.T) {
	out := w.apply(t, sample(t, "asm/moonshot.yaml")+sample(t, "asm/dashscope-qwen.yaml"))
	warns(t, out, "demo-llm-server: 50 % of calls move from no provider (503 ProviderNotFound) to api.moonshot.cn")
	warns(t, out, "apiKey: whoever may read this object has the key: move it to a Secret")
	if strings.Contains(out, "sk-") {
		t.Errorf("a key is shown:\n%s", out)
	}
	for _, row := range []string{
		"dashscope-qwen dashscope.aliyuncs.com qwen-1.8b-chat True True", "moonshot api.moonshot.cn moonshot-v1-8k True True",
		"dashscope-route dashscope.aliyuncs.com vip-route, 2 True True", "demo-llm-server demo-llm-server 1 True True",
	} {
		w.awaitOutput(t, row, "get", "llmproviders,llmroutes")
	}
	w.awaitOutput(t, "Normal ResolvedRefs", "describe", "llmroute", "demo-llm-server")
	w.awaitConfig(t, "model=moonshot-v1-8k")
	w.awaitConfig(t, "model=qwen-turbo")
	w.halves(t)
	if a := w.mustAsk(t, dashscope); a.model != "qwen-1.8b-chat" {
		t.Errorf("a call to dashscope is answered by %+v", a)
	}
	if a := w.mustAsk(t, dashscope, "user-type: subscriber"); a.model != "qwen-turbo" {
		t.Errorf("a subscriber is answered by %+v", a)
	}
}

// halves demands that half of the calls go to each provider. That so many of 200 go to one by chance, nobody will see.
func (w walk) halves(t *testing.T) {
	t.Helper()
	if got := w.shares(t, 200, "demo-llm-server"); got[dashscope]+got[moonshot] != 200 || got[dashscope] < 60 || got[moonshot] < 60 {
		t.Errorf("of 200 calls that are to be shared in halves: %v", got)
	}
}

func (w walk) whatIsWrongIsRefused(t *testing.T) {
	before := w.kubectl(t, "get", "llm", "-o", "yaml")
	for name, refused := range map[string]struct{ manifest, want string }{
		"a scheme": {
			strings.Replace(sample(t, "asm/moonshot.yaml"), "host: api", "host: https://api", 1),
			`The LLMProvider "moonshot" is invalid: spec.host: "https://api.moonshot.cn" has a scheme: write only the name: api.moonshot.cn`,
		},
		"a host that is taken": {
			strings.Replace(sample(t, "asm/moonshot.yaml"), "name: moonshot", "name: second", 1),
			"has a provider already, LLMProvider " + w.namespace + "/moonshot",
		},
		"a misspelt field": {
			strings.Replace(sample(t, "asm/demo-llm-server.yaml"), "weight:", "wieght:", 1), `unknown field "spec.rules[0].backendRefs[0].wieght"`,
		},
		"a key that is sent in plain text": {
			strings.Replace(sample(t, "asm/moonshot.yaml"), "path:", "tls: {mode: DISABLE}\n  path:", 1),
			"a key would travel in plain text: set tls.mode to SIMPLE",
		},
		"weights for some": {
			strings.Replace(sample(t, "asm/demo-llm-server.yaml"), "      weight: 50\n", "", 1),
			"spec.rules[0]: Invalid value: give every backendRef a weight, or none",
		},
	} {
		out, err := w.tryApply(t, refused.manifest)
		if err == nil || !strings.Contains(out, refused.want) || strings.Contains(out, "sk-") {
			t.Errorf("%s: %v; want %s:\n%s", name, err, refused.want, out)
		}
	}
	if after := w.kubectl(t, "get", "llm", "-o", "yaml"); after != before {
		t.Errorf("a refused write has changed something:\n%s\nit was\n%s", after, before)
	}
}

func (w walk) kubectlExplainTeaches(t *testing.T) {
	if out := w.kubectl(t, "explain", "llmroute.spec.rules"); !strings.Contains(out, "always matches") || !strings.Contains(out, "backendRefs") {
		t.Errorf("kubectl explain llmroute.spec.rules:\n%s", out)
	}
}

func (w walk) aPlanOfShares(t *testing.T) {
	const sentence = "demo-llm-server: 50 % of calls move from dashscope.aliyuncs.com to api.moonshot.cn"
	edited := routeOf("demo-llm-server", "demo-llm-server", 0, 100)
	before := w.generation(t)
	warns(t, w.apply(t, edited, "--dry-run=server"), sentence)
	w.halves(t)
	if now := w.generation(t); now != before {
		t.Errorf("a dry run has changed what runs from %s to %s", before, now)
	}
	warns(t, w.apply(t, edited), sentence)
	w.awaitChange(t, before)
	if got := w.shares(t, 100, "demo-llm-server"); got[moonshot] != 100 {
		t.Errorf("of 100 calls that are all to go to %s: %v", moonshot, got)
	}
}

func (w walk) aPlanOfRules(t *testing.T) {
	const sentence = "dashscope.aliyuncs.com: rule vip-route can no longer match: rule all takes its calls: model qwen-1.8b-chat instead of qwen-turbo"
	edited := strings.Replace(sample(t, "asm/dashscope-route.yaml"), "  rules:\n", "  rules:\n  - name: all\n    backendRefs: [{providerHost: dashscope.aliyuncs.com}]\n", 1)
	before := w.generation(t)
	warns(t, w.apply(t, edited, "--dry-run=server"), sentence)
	warns(t, w.apply(t, edited), sentence)
	w.awaitChange(t, before)
	if a := w.mustAsk(t, dashscope, "user-type: subscriber"); a.model != "qwen-1.8b-chat" {
		t.Errorf("a subscriber is answered by %+v", a)
	}
}

// A route that shows the provider another host is fine until the provider gets a key.
func (w walk) anEditThatBreaksAnother(t *testing.T) {
	keyless := strings.Replace(sample(t, "asm/moonshot.yaml"), "apiKey: "+keyOfMoonshot, "stream: false", 1)
	keyless = strings.Replace(keyless, "        stream: false\n", "", 1)
	w.apply(t, keyless)
	w.apply(t, `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: rewriting}
spec:
  host: rewriting
  rules: [{backendRefs: [{providerHost: api.moonshot.cn, hostRewrite: dashscope.aliyuncs.com}]}]
`)
	w.awaitOutput(t, "rewriting rewriting 1 True True", "get", "llmroutes")
	warns(t, w.apply(t, sample(t, "asm/moonshot.yaml")), "this makes LLMRoute "+w.namespace+"/rewriting invalid: spec.rules[0].backendRefs[0].hostRewrite")
	w.awaitOutput(t, "rewriting rewriting 1 False True", "get", "llmroutes")
	told := fields(w.awaitOutput(t, "remora-controller spec.rules[0].backendRefs[0].hostRewrite", "describe", "llmroute", "rewriting"))
	if !strings.Contains(told, "Message: spec.rules[0].backendRefs[0].hostRewrite: ") {
		t.Errorf("the condition does not say why not:\n%s", told)
	}
	w.awaitConfig(t, "key=inline")
	if a := w.mustAsk(t, "rewriting"); a.status != http.StatusServiceUnavailable || a.code != "InvalidConfiguration" {
		t.Errorf("a call to a route that is not accepted: %+v", a)
	}
	w.kubectl(t, "delete", "llmroute", "rewriting")
}

func (w walk) aDeleteIsPlanned(t *testing.T) {
	w.apply(t, sample(t, "asm/dashscope-route.yaml"))
	w.awaitConfig(t, "model=qwen-turbo")
	before := w.generation(t)
	const decided = `dashscope.aliyuncs.com: calls with header user-type exact "subscriber" are decided by the provider's own config instead of removed rule vip-route`
	warns(t, w.kubectl(t, "delete", "llmroute", "dashscope-route", "--dry-run=server"), decided)
	warns(t, w.kubectl(t, "delete", "llmroute", "dashscope-route"), decided)
	w.awaitChange(t, before)
	if a := w.mustAsk(t, dashscope, "user-type: subscriber"); a.model != "qwen-1.8b-chat" {
		t.Errorf("a subscriber is answered by %+v", a)
	}

	before = w.generation(t)
	const refused = "demo-llm-server: all calls move from api.moonshot.cn to no provider (503 ProviderNotFound)"
	warns(t, w.kubectl(t, "delete", "llmprovider", "moonshot", "--dry-run=server"), refused)
	warns(t, w.kubectl(t, "delete", "llmprovider", "moonshot"), refused)
	w.awaitChange(t, before)
	if got := w.shares(t, 20, "demo-llm-server"); got["503 ProviderNotFound"] != 20 {
		t.Errorf("of 20 calls that are all to be refused: %v", got)
	}

	// Of a host of which nothing is left, this sidecar lets no prompt out in plain text. One that starts now does not know it.
	before = w.generation(t)
	out := w.kubectl(t, "delete", "llmroute", "demo-llm-server")
	warns(t, out, "host api.moonshot.cn is no longer owned: new pods pass its calls on untouched, in plain text; running pods refuse them until they are restarted")
	warns(t, out, "host demo-llm-server loses its route and is no longer owned: new pods pass its calls on untouched")
	w.awaitChange(t, before)
	w.providers.Reset()
	for _, host := range []string{moonshot, "demo-llm-server"} {
		if a := w.mustAsk(t, host); a.status != http.StatusServiceUnavailable || a.code != "HostRetired" {
			t.Errorf("a call to %s, which nothing names any more: %+v", host, a)
		}
	}
	if got := w.providers.Requests(); len(got) > 0 {
		t.Errorf("a call that is to be refused arrives as %+v", got)
	}
	later := walk{w.tenant, w.tenant.sidecar(t, w.providers), w.providers}
	later.mustAsk(t, moonshot)
	if got := w.providers.Requests(); len(got) != 1 || got[0].TLS || got[0].Host != moonshot || len(got[0].Header.Values("Authorization")) > 0 {
		t.Errorf("a call that is to pass on untouched, in plain text, arrives as %+v", got)
	}
}

func (w walk) aKeyInASecret(t *testing.T) {
	manifest := sample(t, "key-from-secret.yaml") // with its Secret, whose key is still to be replaced
	secret, provider, _ := strings.Cut(manifest, "---\n")
	w.kubectl(t, "delete", "llm", "--all")
	w.apply(t, provider)
	w.awaitOutput(t, "dashscope dashscope.aliyuncs.com qwen-turbo True False", "get", "llmproviders")
	w.awaitOutput(t, "does not exist", "describe", "llmprovider", "dashscope")
	w.apply(t, strings.Replace(secret, "replace-me", keyOfDashscope, 1))
	w.awaitOutput(t, "dashscope dashscope.aliyuncs.com qwen-turbo True True", "get", "llmproviders")
	w.kubectl(t, append([]string{"create", "secret", "generic", v1beta1.KeysSecret, "--from-literal=" + v1beta1.KeysSecretEntry("dashscope", "apiKey") + "=" + keyOfDashscope},
		installation.AsController()...)...)
	if config := w.awaitConfig(t, "key=secret:dashscope/apiKey"); strings.Contains(config, "sk-") {
		t.Errorf("a key is shown:\n%s", config)
	}
	if a := w.mustAsk(t, dashscope); a.model != "qwen-turbo" {
		t.Errorf("a call to dashscope is answered by %+v", a)
	}
	log, err := os.ReadFile(w.Log())
	if err != nil || strings.Contains(string(log), "sk-") {
		t.Errorf("a key is in the log (%v):\n%s", err, log)
	}
}
