package routing_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

const explained = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: big}
spec:
  host: big.example
  configs: {defaultConfig: {openAIConfig: {model: big-1, apiKey: sk-very-secret}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: small}
spec: {host: small.example, path: /v2/chat, query: {token: sk-hidden}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: demo}
spec:
  host: demo
  rules:
  - name: batch
    matches: [{sourceLabels: {app: batch}}]
    backendRefs: [{providerHost: big.example}]
  - name: vip
    matches:
    - headers: {user-type: {exact: subscriber}, user-region: {prefix: eu-}}
    - model: {regex: "gpt-.*"}
    timeouts: {request: 30s}
    backendRefs: [{providerHost: big.example, weight: 3}, {providerHost: small.example, weight: 1}, {providerHost: gone.example, priority: 1, weight: 1}]
  - backendRefs: [{providerHost: big.example}]
`

func explainedTable(t *testing.T) *routing.Table {
	t.Helper()
	table, _ := routing.Compile(decodeAll(t, []byte(explained)), &routing.Workload{Namespace: "default", Labels: map[string]string{"app": "web"}})
	return table
}

func TestAnExplanationSaysWhichRuleTakesACallAndWhyOthersDoNot(t *testing.T) {
	table := explainedTable(t)
	f := func(q routing.Question, want string) {
		t.Helper()
		e := table.Explain(&q)
		var b strings.Builder
		if e.Refusal != nil {
			fmt.Fprintf(&b, "refused %s\n", e.Refusal.Code)
		}
		fmt.Fprintf(&b, "%s owned=%t %s\n", e.Host, e.Owned, e.Operation)
		for _, p := range e.Passed {
			fmt.Fprintf(&b, "not %d %s: %s\n", p.Number, p.Name, p.Why)
		}
		if r := e.Rule; r != nil {
			fmt.Fprintf(&b, "rule %d %s of %s: %s\n", r.Number, r.Name, r.Owner, r.Why)
		}
		for _, s := range e.Backends {
			fmt.Fprintf(&b, "%d %.2f %s: %s %q at %s with %s in %s", s.Priority, s.Share, s.SelectedBy, s.Provider, s.Model, s.URL, s.Key, s.KeyIn)
			if s.Refusal != nil {
				fmt.Fprintf(&b, " refused %s", s.Refusal.Code)
			}
			b.WriteByte('\n')
		}
		if got := b.String(); got != strings.TrimLeft(want, "\n") {
			t.Errorf("%+v:\n%s\nwant\n%s", q, got, want)
		}
		if all, _ := json.Marshal(e); strings.Contains(string(all), "sk-") {
			t.Errorf("a key is shown: %s", all)
		}
	}
	f(routing.Question{Host: "Demo:80", Path: "/v1/chat/completions"}, `
demo owned=true chat
not 1 batch: label app: the pod's is "web", the rule wants "batch"
not 2 vip: match 1 of 2: header user-region: is absent, the rule wants one that begins with "eu-"; match 2 of 2: model: is not named, the rule wants one that matches "gpt-.*" as a whole
rule 3  of LLMRoute default/demo: it takes every call
0 1.00 every call: LLMProvider default/big "big-1" at https://big.example:443/v1/chat/completions with inline in Authorization
`)
	f(routing.Question{Host: "demo", Model: "x", Header: map[string][]string{"user-REGION": {"eu-1"}, "User-Type": {"guest"}}}, `
demo owned=true chat
not 1 batch: label app: the pod's is "web", the rule wants "batch"
not 2 vip: match 1 of 2: header user-type: is "guest", the rule wants exactly "subscriber"; match 2 of 2: model: is "x", the rule wants one that matches "gpt-.*" as a whole
rule 3  of LLMRoute default/demo: it takes every call
0 1.00 every call: LLMProvider default/big "big-1" at https://big.example:443/v1/chat/completions with inline in Authorization
`)
	f(routing.Question{Host: "demo", Path: "/v1/embeddings", Model: "gpt-4"}, `
demo owned=true embeddings
not 1 batch: label app: the pod's is "web", the rule wants "batch"
rule 2 vip of LLMRoute default/demo: match 2 of 2: model: is "gpt-4", the rule wants one that matches "gpt-.*" as a whole
0 0.75 3 of 4 calls, by weight: LLMProvider default/big "gpt-4" at https://big.example:443/v1/embeddings with inline in Authorization
0 0.25 1 of 4 calls, by weight: LLMProvider default/small "gpt-4" at https://small.example:443/v1/embeddings?token=… with  in 
1 1.00 what no backend of priority 0 could take, which fails:  "" at  with  in  refused ProviderNotFound
`)
	f(routing.Question{Host: "demo", Path: "/v1/files", Method: "GET", Model: "gpt-4"}, `
demo owned=true 
not 1 batch: label app: the pod's is "web", the rule wants "batch"
not 2 vip: match 1 of 2: header user-region: is absent, the rule wants one that begins with "eu-"; match 2 of 2: model: is not named, the rule wants one that matches "gpt-.*" as a whole
rule 3  of LLMRoute default/demo: it takes every call
0 1.00 every call: LLMProvider default/big "big-1" at https://big.example:443/v1/chat/completions with inline in Authorization refused OperationNotFound
`)
	f(routing.Question{Host: "big.example"}, `
big.example owned=true chat
rule 0  of LLMProvider default/big: the provider has no route of its own for its host: it takes every call
0 1.00 every call: LLMProvider default/big "big-1" at https://big.example:443/v1/chat/completions with inline in Authorization
`)
	f(routing.Question{Host: "gone.example"}, `
refused ProviderNotFound
gone.example owned=true 
`)
	f(routing.Question{Host: "foreign.example"}, `
foreign.example owned=false 
`)
}

// mould makes requests that rules of wild tables have something to say about.
func mould(w *rand.Rand) *routing.Question {
	one := func(of ...string) string { return of[w.IntN(len(of))] }
	q := &routing.Question{
		Host: one("a.example.com", "api", "b.example.com", "one", "r", "demo", "canary", "x.example.com", "gone", "many0", "many1.example.com", "many2.example.com", "many0", "many1.example.com"), Method: one("POST", "GET", "x", "/"),
		Path:  one("/", "/v1", "/v1/chat/completions", "/v1/embeddings", "/x?q=x", "/v1?q=%2Fv1&=x", "/v1/realtime", "/v1/audio/speech"),
		Model: one("", "x", "a", "gpt-4"), Header: map[string][]string{},
	}
	for range w.IntN(3) {
		name := one("x", "user-type", "User-Region")
		q.Header[name] = append(q.Header[name], one("", "x", "a", "/v1", "subscriber", "eu-1"))
	}
	return q
}

// manyRules is a route, or a VirtualService for a gateway, of rules that look at everything that they can look at.
func manyRules(w *rand.Rand, i int) []byte {
	one := func(of ...string) string { return of[w.IntN(len(of))] }
	value := func() string {
		return one("{exact: x}", "{exact: a}", "{prefix: /v1}", "{prefix: ''}", "{regex: 'a|x'}", "{regex: '/v1.*'}", "{exact: /v1}", "{exact: POST}", "{prefix: gpt}")
	}
	var conditions func(of ...string) string
	conditions = func(of ...string) string {
		var all []string
		for _, field := range of {
			if w.IntN(3) == 0 {
				all = append(all, strings.ReplaceAll(field, "VALUE", value()))
			}
		}
		if all == nil {
			return conditions(of...)
		}
		return "{" + strings.Join(all, ", ") + "}"
	}
	var b strings.Builder
	if i == 0 {
		fmt.Fprintf(&b, "apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: many}\nspec:\n  host: many0\n  rules:\n")
		for n := range 8 {
			var matches []string
			for range 1 + w.IntN(3) {
				matches = append(matches, conditions("headers: {x: VALUE}", "model: VALUE", "sourceLabels: {app: "+one("chat", "web")+"}"))
			}
			fmt.Fprintf(&b, "  - {name: r%d, matches: [%s], backendRefs: [{providerHost: big.example, weight: 1}, {backendRef: {name: api, port: 80}, weight: 2}]}\n", n, strings.Join(matches, ", "))
		}
		return []byte(b.String())
	}
	fmt.Fprintf(&b, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: many%d}\nspec:\n  hosts: [many%d.example.com]\n  gateways: [many]\n  http:\n", i, i)
	for n := range 8 {
		match := conditions("headers: {x: VALUE}", "withoutHeaders: {user-type: VALUE}", "uri: VALUE", "method: VALUE", "authority: VALUE", "queryParams: {q: VALUE}", "ignoreUriCase: true")
		fmt.Fprintf(&b, "  - {name: v%d, match: [%s], route: [{destination: {host: api, port: {number: 80}}}]}\n", n, match)
	}
	if i == 1 {
		b.WriteString("---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: many}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{hosts: ['*'], port: {number: 8081, protocol: HTTP, name: many}}]\n")
	}
	return []byte(b.String())
}

// shown is a question as the proxy shows a request.
type shown struct{ q *routing.Question }

func (s shown) Header(name string) ([]byte, bool) {
	var all []string
	present := false
	for given, values := range s.q.Header {
		if textproto.CanonicalMIMEHeaderKey(given) == name {
			all, present = append(all, values...), true
		}
	}
	return []byte(strings.Join(all, ",")), present
}
func (s shown) Method() []byte    { return []byte(s.q.Method) }
func (s shown) Authority() []byte { return []byte(s.q.Host) }
func (s shown) Path() []byte {
	path, _, _ := strings.Cut(s.q.Path, "?")
	return []byte(path)
}

func (s shown) QueryParameter(name string) ([]byte, bool) {
	_, query, _ := strings.Cut(s.q.Path, "?")
	all, _ := url.ParseQuery(query)
	if !all.Has(name) {
		return nil, false
	}
	return []byte(all.Get(name)), true
}

// Over whatever is written, and whatever is asked: the rule that is explained is the one that Match finds, each rule before it is passed over
// with a reason, the shares of each priority are whole, and what is shown of a table says the same.
func TestWhatIsExplainedIsWhatIsMatched(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 8))
	taken, passed, refused := 0, 0, 0
	for n := range 80 {
		var in routing.Objects
		in.Secrets = []routing.Secret{}
		for _, doc := range (wild{random}).objects() {
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.DecodeJSON(text, "default"); err != nil {
				t.Fatal(err)
			}
		}
		docs := documents(t, []byte(explained))
		for i := range 3 {
			docs = append(docs, documents(t, manyRules(random, i))...)
		}
		for _, doc := range docs {
			if _, err := in.Decode(doc, "default"); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range []*routing.Workload{ingress, {Namespace: "default", Labels: map[string]string{"app": "chat"}}} {
			table, _ := routing.Compile(in, w)
			for range 30 {
				q := mould(random)
				e := table.Explain(q)
				host := hostOf(table, q, &e)
				if host == nil || host.Refusal != nil {
					refused++
					if e.Rule != nil && e.Remark == "" {
						t.Fatalf("round %d: a rule for a host that nobody has: %+v", n, e)
					}
					continue
				}
				o, _ := host.Operation(shown{q}.Path())
				if o != nil && o.Method != q.Method {
					o = nil
				}
				var model []byte
				if o != nil && (o.JSON || o.Form || o.Upgrade) && (o.JSON || !host.Plain) {
					model = []byte(q.Model)
				}
				rule := host.Match(shown{q}, model)
				if (rule == nil) != (e.Rule == nil) || rule != nil && (rule.Name != e.Rule.Name || rule.Number() != e.Rule.Number || rule.Owner.String() != e.Rule.Owner) {
					t.Fatalf("round %d, %+v: matched %+v, explained %+v", n, q, rule, e.Rule)
				}
				sound(t, host, rule, &e)
				taken += len(e.Backends)
				passed += len(e.Passed)
			}
			if _, err := json.Marshal(table.Show()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if taken < 500 || passed < 1000 || refused < 100 {
		t.Errorf("%d backends, %d rules passed over, %d hosts refused: too few to show anything", taken, passed, refused)
	}
}

// hostOf finds the host as the proxy does.
func hostOf(table *routing.Table, q *routing.Question, e *routing.Explanation) *routing.Host {
	if len(table.Listeners()) == 0 {
		return table.Host([]byte(q.Host))
	}
	l := table.Listener(e.Port)
	if l == nil {
		return nil
	}
	s := l.Server([]byte(q.Host))
	if s.Refusal != nil || s.Passthrough || s.ToHTTPS {
		return nil
	}
	return s.Host([]byte(q.Host))
}

func sound(t *testing.T, host *routing.Host, rule *routing.Rule, e *routing.Explanation) {
	t.Helper()
	before := len(host.Rules)
	if rule != nil {
		before = slices.Index(host.Rules, rule)
		if e.Rule.Why == "" {
			t.Error("a rule takes a call for no reason")
		}
	} else if e.Refusal == nil || e.Refusal.Code != routing.NoRuleMatches {
		t.Errorf("no rule, and refused for %+v", e.Refusal)
	}
	if len(e.Passed) < before {
		t.Errorf("%d rules are before it, %d are said to be", before, len(e.Passed))
	}
	for _, p := range e.Passed {
		if p.Why == "" || strings.Contains(p.Why, "nothing is wanted") {
			t.Errorf("a rule is passed over for no reason: %+v", p)
		}
	}
	shares := map[int]float64{}
	for _, b := range e.Backends {
		shares[b.Priority] += b.Share
		if b.Provider == "" && b.Refusal == nil || b.SelectedBy == "" {
			t.Errorf("a backend that is nothing: %+v", b)
		}
	}
	for priority, share := range shares {
		if share < 0.999 || share > 1.001 {
			t.Errorf("priority %d has %g of its calls", priority, share)
		}
	}
}
