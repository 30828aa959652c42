package routing_test

import (
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// asked is a request in one line: METHOD AUTHORITY PATH?QUERY, then headers.
type asked struct{ method, authority, path, query, headers string }

func (a asked) Header(name string) ([]byte, bool) { return headers(a.headers).Header(name) }
func (a asked) Method() []byte                    { return []byte(a.method) }
func (a asked) Authority() []byte                 { return []byte(a.authority) }
func (a asked) Path() []byte                      { return []byte(a.path) }
func (a asked) QueryParameter(name string) ([]byte, bool) {
	for pair := range strings.SplitSeq(a.query, "&") {
		if n, v, _ := strings.Cut(pair, "="); n == name && pair != "" {
			return []byte(v), true
		}
	}
	return nil, false
}

func ask(line string) asked {
	request, headers, _ := strings.Cut(line, "; ")
	words := strings.Fields(request)
	path, query, _ := strings.Cut(words[2], "?")
	return asked{words[0], words[1], path, query, headers}
}

func TestAMatchOfAVirtualServiceIsComparedAsIstioDoes(t *testing.T) {
	f := func(match, request, want string) {
		t.Helper()
		table, problems := edge(t, gatewayWith("edge", plainServer)+virtualWith("a", `"*"`, fmt.Sprintf("{name: first, match: [%s], route: [{destination: {host: api}}]}, {name: second, route: [{destination: {host: api}}]}", match)))
		for _, p := range problems {
			if p.Severity == routing.Invalid {
				t.Fatal(p)
			}
		}
		a := ask(request)
		if got := table.Listener(80).Server(a.Authority()).Host(a.Authority()).Match(a, nil).Name; got != want {
			t.Errorf("%s for %q: %s, want %s", match, request, got, want)
		}
	}
	const plain = "GET api.example.com /v1/models"
	f("{uri: {prefix: /v1}}", plain, "first")
	f("{uri: {prefix: /v1}}", "GET a /v10", "first")
	f("{uri: {prefix: /v1/}}", "GET a /v1", "second")
	f("{uri: {prefix: /V1}}", plain, "second")
	f("{uri: {prefix: /V1}, ignoreUriCase: true}", plain, "first")
	f("{uri: {exact: /V1/MODELS}, ignoreUriCase: true}", plain, "first")
	f("{uri: {exact: /v1/model}, ignoreUriCase: true}", plain, "second")
	f("{uri: {exact: /v1/models}}", "GET a /v1/models?x=y", "first")
	f("{uri: {regex: /v1/m.*}}", plain, "first")
	f("{uri: {regex: /v1}}", plain, "second")
	f("{uri: {regex: /v1|.*models}}", plain, "first")
	f("{method: {exact: GET}}", plain, "first")
	f("{method: {exact: get}}", plain, "second")
	f("{method: {regex: POST|PUT}}", plain, "second")
	f("{authority: {exact: api.example.com}}", "GET API.example.com:80 /", "first")
	f("{authority: {exact: 'api.example.com:80'}}", "GET api.example.com:80 /", "first")
	f("{authority: {exact: 'api.example.com:81'}}", "GET api.example.com:80 /", "second")
	f("{authority: {prefix: api.}}", plain, "first")
	f("{headers: {x-a: {exact: b}}}", plain+"; X-A: b", "first")
	f("{headers: {x-a: {}}}", plain+"; X-A: b", "first")
	f("{headers: {x-a: {}}}", plain, "second")
	f("{withoutHeaders: {x-a: {}}}", plain, "first")
	f("{withoutHeaders: {x-a: {}}}", plain+"; X-A: b", "second")
	f("{withoutHeaders: {x-a: {exact: c}}}", plain+"; X-A: b", "first")
	f("{withoutHeaders: {x-a: {exact: b}}}", plain+"; X-A: b", "second")
	f("{queryParams: {k: {exact: v}}}", "GET a /?k=v", "first")
	f("{queryParams: {k: {exact: ''}}}", "GET a /?k", "first")
	f("{queryParams: {k: {exact: ''}}}", "GET a /?k=v", "second")
	f("{queryParams: {k: {regex: v+}}}", "GET a /?k=vv", "first")
	f("{queryParams: {k: {}}}", "GET a /?l=v", "second")
	f("{port: 80}", plain, "first")
	f("{port: 81}", plain, "second")
	f("{scheme: {exact: http}}", plain, "first")
	f("{scheme: {prefix: https}}", plain, "second")
	f("{gateways: [mesh]}", plain, "second")
	f("{gateways: [mesh, edge]}", plain, "first")
	f("{sourceLabels: {istio: ingressgateway}}", plain, "first")
	f("{sourceLabels: {app: other}}", plain, "second")
	f("{sourceLabels: {app: other}, gateways: [default/edge]}", plain, "first")
	f("{sourceNamespace: remora-gateway}", plain, "first")
	f("{sourceNamespace: default}", plain, "second")
	f("{uri: {prefix: /v1}, method: {exact: POST}}", plain, "second")
	f("{uri: {prefix: /v2}}, {method: {exact: GET}}", plain, "first")
	f("{}", plain, "first")
	// What is not honoured in a match takes the calls that the rest of it takes, to refuse them.
	f("{uri: {prefix: /v1}, unheard: 5}", plain, "first")
	f("{uri: {prefix: /v2}, unheard: 5}", plain, "second")
	f("{uri: {prefix: /v1}, statPrefix: x}", plain, "first")
}

func TestAWordOfRetryOnMeansWhatItMeansHere(t *testing.T) {
	f := func(retries, want, warned string) {
		t.Helper()
		table, problems := edge(t, gatewayWith("edge", plainServer)+virtualWith("a", `"*"`, "{route: [{destination: {host: api}}], retries: {"+retries+"}}"))
		r := table.Listener(80).Server([]byte("a")).Host([]byte("a")).Rules[0]
		if got := r.Retries.String(); got != want {
			t.Errorf("%s: %s, want %s", retries, got, want)
		}
		if (warned == "") != (len(problems) == 0) || !has(problems, warned) && warned != "" {
			t.Errorf("%s: %v", retries, problems)
		}
	}
	f("attempts: 0", "attempts=0 connect-failure rate-limited", "")
	f("attempts: 3", "attempts=3 connect-failure rate-limited", "")
	f("attempts: 3, retryOn: 5xx", "attempts=3 connect-failure reset 5xx", "")
	f("attempts: 3, retryOn: 'gateway-error, reset'", "attempts=3 connect-failure reset gateway-error", "")
	f("attempts: 3, retryOn: 'connect-failure,refused-stream,503'", "attempts=3 connect-failure rate-limited", "refused-stream is not honoured")
	f("attempts: 3, retryOn: retriable-4xx", "attempts=3", `"retriable-4xx" is not honoured`)
	f("attempts: 3, retryOn: 'unavailable,429'", "attempts=3 rate-limited", "unavailable is not honoured, and is of gRPC only")
	f("attempts: 3, retryOn: 504", "attempts=3 connect-failure rate-limited", "retryOn: is a number")
	f("attempts: 3, retryOn: '504'", "attempts=3", "status 504 by itself")
	f("attempts: 30, retryOn: reset", "attempts=10 connect-failure reset", "attempts: 30 is more than")
	f("attempts: 1, retryOn: gateway-error, perTryTimeout: 2s", "attempts=1 gateway-error first-token", "")
	f("attempts: 1, retryOn: connect-failure, perTryTimeout: 2s", "attempts=1 connect-failure", "")
	f("attempts: 1, backoff: 1s", "attempts=1 connect-failure rate-limited", "backoff: is not honoured")
}

// In a sidecar, the VirtualService for a Service has its say about the calls of a route's rule: first the rule, then the VirtualService.
func TestARuleAndAVirtualServiceDecideTogether(t *testing.T) {
	in := decodeAll(t, []byte(`
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: one}
spec:
  hosts: [one]
  http:
  - {match: [{headers: {a: {exact: "1"}}}, {uri: {prefix: /x}}], route: [{destination: {host: two}}]}
  - {match: [{headers: {b: {exact: "1"}}}], directResponse: {status: 418}}
  - {match: [{method: {exact: POST}}], route: [{destination: {host: one}}]}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: r}
spec:
  host: demo
  rules:
  - matches: [{headers: {tier: {exact: gold}}}, {model: {exact: big}}]
    backendRefs: [{backendRef: {name: one}}]
  - backendRefs: [{backendRef: {name: two}}]
`))
	table, problems := routing.Compile(in, &routing.Workload{Namespace: "default"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	f := func(request, model, want string) {
		t.Helper()
		r := table.Host([]byte("demo")).Match(ask(request), []byte(model))
		var got string
		switch {
		case r.Action != nil && r.Action.Direct != nil:
			got = fmt.Sprint(r.Action.Direct.Status)
		case r.Levels[0].Backends[0].Target != nil:
			got = r.Levels[0].Backends[0].Target.Provider.Name
		default:
			got = string(r.Levels[0].Backends[0].Refusal.Code)
		}
		if got != want {
			t.Errorf("%s with model %q: %s, want %s", request, model, got, want)
		}
	}
	f("POST demo /", "", "two")
	f("POST demo /; Tier: gold", "", "one")
	f("POST demo /; Tier: gold; A: 1", "", "two")
	f("POST demo /x; Tier: gold", "", "two")
	f("POST demo /; Tier: gold; B: 1", "", "418")
	f("POST demo /; Tier: gold; B: 1; A: 1", "", "two")
	f("GET demo /; Tier: gold", "", "NoRuleMatches")
	f("GET demo /", "big", "NoRuleMatches")
	f("POST demo /; B: 1", "big", "418")
	f("POST demo /; B: 1", "small", "two")
}
