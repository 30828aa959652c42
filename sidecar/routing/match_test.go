package routing_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// bare is a request of which nothing matters but what a test adds.
type bare struct{}

func (bare) Header(string) ([]byte, bool)         { return nil, false }
func (bare) Method() []byte                       { return []byte("POST") }
func (bare) Authority() []byte                    { return []byte("demo") }
func (bare) Path() []byte                         { return []byte("/v1/chat/completions") }
func (bare) QueryParameter(string) ([]byte, bool) { return nil, false }

// headers are written "Name: value; Name: value".
type headers string

type withHeaders struct {
	bare
	headers
}

func (r withHeaders) Header(name string) ([]byte, bool) { return r.headers.Header(name) }

func (h headers) Header(name string) ([]byte, bool) {
	for line := range strings.SplitSeq(string(h), "; ") {
		if n, v, ok := strings.Cut(line, ": "); ok && n == name {
			return []byte(v), true
		}
	}
	return nil, false
}

func routeWith(t *testing.T, rules string) *routing.Host {
	t.Helper()
	table, problems := routing.Compile(decodeAll(t, []byte(provider+`
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: r}
spec:
  host: demo
  rules:
`+rules)), &routing.Workload{Namespace: "default", Labels: map[string]string{"app": "sleep"}})
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			t.Fatal(p)
		}
	}
	return table.Host([]byte("demo"))
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	backends := ", backendRefs: [{providerHost: llm.example.com}]}\n"
	f := func(matches string, sent headers, model, want string) {
		t.Helper()
		var rules strings.Builder
		for i, m := range strings.Split(matches, " | ") {
			fmt.Fprintf(&rules, "  - {name: rule-%d, matches: %s%s", i+1, m, backends)
		}
		got := "none"
		if r := routeWith(t, rules.String()).Match(withHeaders{headers: sent}, []byte(model)); r != nil {
			got = r.Name
		}
		if got != want {
			t.Errorf("%s with headers %q and model %q: %s, want %s", matches, sent, model, got, want)
		}
	}
	f("[]", "", "", "rule-1")
	f("[{}]", "", "", "rule-1")
	f("[] | []", "", "", "rule-1")
	f("[{headers: {user-type: {exact: subscriber}}}] | []", "User-Type: subscriber", "", "rule-1")
	f("[{headers: {USER-type: {exact: subscriber}}}] | []", "User-Type: subscriber", "", "rule-1")
	f("[{headers: {user-type: {exact: subscriber}}}] | []", "User-Type: Subscriber", "", "rule-2")
	f("[{headers: {user-type: {exact: subscriber}}}] | []", "User-Type: subscriber,guest", "", "rule-2")
	f("[{headers: {user-type: {exact: subscriber}}}] | []", "", "", "rule-2")
	f("[{headers: {user-type: {exact: ''}}}] | []", "", "", "rule-2")
	f("[{headers: {user-type: {exact: ''}}}] | []", "User-Type: ", "", "rule-1")
	f("[{headers: {user-type: {}}}] | []", "User-Type: ", "", "rule-1")
	f("[{headers: {user-type: {}}}] | []", "User-Types: x", "", "rule-2")
	f("[{headers: {user-type: {prefix: sub}}}] | []", "User-Type: subscriber", "", "rule-1")
	f("[{headers: {user-type: {prefix: subscribers}}}] | []", "User-Type: subscriber", "", "rule-2")
	f("[{headers: {user-type: {regex: 'sub.*'}}}] | []", "User-Type: subscriber", "", "rule-1")
	f("[{headers: {user-type: {regex: 'sub'}}}] | []", "User-Type: subscriber", "", "rule-2")
	f("[{headers: {user-type: {regex: 'sub|subscriber'}}}] | []", "User-Type: subscriber", "", "rule-1")
	f("[{headers: {user-type: {regex: 'a|b'}}}] | []", "User-Type: bc", "", "rule-2")
	f("[{headers: {user-type: {regex: '(?m)^a$'}}}] | []", "User-Type: a\nb", "", "rule-2")
	f("[{headers: {a: {exact: x}, b: {exact: z}}}] | []", "A: x; B: z", "", "rule-1")
	f("[{headers: {a: {exact: x}, b: {exact: z}}}] | []", "A: x; B: x", "", "rule-2")
	f("[{headers: {a: {exact: x}}}, {headers: {b: {exact: z}}}] | []", "B: z", "", "rule-1")
	f("[{model: {prefix: gpt-4}}] | [{model: {exact: gpt-4}}]", "", "gpt-4", "rule-1")
	f("[{model: {exact: gpt-4}}] | [{model: {prefix: gpt-4}}]", "", "gpt-4o", "rule-2")
	f("[{model: {}}] | []", "", "", "rule-2")
	f("[{model: {}}] | []", "", "x", "rule-1")
	f("[{model: {exact: ''}}] | []", "", "", "rule-1")
	f("[{model: {exact: a}, headers: {x: {}}}] | []", "X: 1", "b", "rule-2")
	f("[{sourceLabels: {app: sleep}}] | []", "", "", "rule-1")
	f("[{sourceLabels: {app: curl}}] | []", "", "", "rule-2")
	f("[{sourceLabels: {app: curl}}, {headers: {x: {}}}] | []", "X: 1", "", "rule-1")
	f("[{gateways: [mesh]}] | []", "", "", "rule-1")
	f("[{headers: {x: {}}}] | [{model: {exact: a}}]", "", "b", "none")
}

func TestBackendsAreDrawnByTheirWeight(t *testing.T) {
	const draws = 100_000
	f := func(weights []int, tried uint64, want []float64) {
		t.Helper()
		rules := "  - backendRefs:\n"
		for _, w := range weights {
			rules += fmt.Sprintf("    - {providerHost: llm.example.com, weight: %d}\n", w)
		}
		level := &routeWith(t, rules).Rules[0].Levels[0]
		count := make([]int, len(weights))
		random := rand.New(rand.NewPCG(1, 2))
		for range draws {
			if i := level.Pick(random.Uint64(), tried); i >= 0 {
				count[i]++
			}
		}
		for i := range want {
			if share := float64(count[i]) / draws; share < want[i]-0.01 || share > want[i]+0.01 || want[i] == 0 && count[i] > 0 {
				t.Errorf("weights %v, tried %b: backend %d has a share of %.3f, want %.3f", weights, tried, i, share, want[i])
			}
		}
	}
	f([]int{50, 50}, 0, []float64{0.5, 0.5})
	f([]int{1, 3}, 0, []float64{0.25, 0.75})
	f([]int{0, 1, 3}, 0, []float64{0, 0.25, 0.75})
	f([]int{1, 1, 2}, 0b100, []float64{0.5, 0.5, 0})
	f([]int{1, 1, 2}, 0b011, []float64{0, 0, 1})
	f([]int{0, 1}, 0b10, []float64{0, 0})
	f([]int{1, 1}, 0b11, []float64{0, 0})
	f([]int{1000000, 1000000, 1000000}, 0, []float64{0.333, 0.333, 0.333})
}

func TestABackendThatIsMissingKeepsItsShare(t *testing.T) {
	level := &routeWith(t, "  - backendRefs: [{providerHost: llm.example.com}, {providerHost: gone.example.com}]").Rules[0].Levels[0]
	missing := 0
	for draw := range uint64(1000) {
		if b := level.Backends[level.Pick(draw, 0)]; b.Refusal != nil {
			missing++
		}
	}
	if missing != 500 {
		t.Errorf("the missing provider has %d of 1000 calls, want 500", missing)
	}
}
