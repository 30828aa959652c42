//go:build linux

package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

const subsetRoutes = `
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: routes}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [routes.example.com]}]
---
apiVersion: v1
kind: Service
metadata: {name: model}
spec: {selector: {app: large-language-model-api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: model}
spec:
  host: model
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: routes}
spec:
  hosts: [routes.example.com]
  gateways: [routes]
  http:
  - match: [{headers: {x-tier: {exact: gold}}}]
    route: [{destination: {host: model, subset: v2}}]
  - match: [{uri: {prefix: /api/}}]
    rewrite: {uri: /v1/}
    headers: {request: {set: {x-way: rewritten}}, response: {add: {x-said: by-the-gateway}}}
    route: [{destination: {host: model, subset: v1}}]
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, authority: elsewhere.example.com, redirectCode: 308}
  - match: [{headers: {x-fault: {exact: "yes"}}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 418}}
    route: [{destination: {host: model}}]
  - match: [{headers: {x-chaos: {exact: "yes"}}}]
    fault: {abort: {percentage: {value: 30}, httpStatus: 418}}
    route: [{destination: {host: model}}]
  - route:
    - {destination: {host: model, subset: v1}, weight: 75}
    - {destination: {host: model, subset: v2}, weight: 25}
`

// gatewayRoutes sends calls by what they are, to servers by what they are.
func gatewayRoutes(t *testing.T) {
	t.Helper()
	in := labelled(t, "e2e-gateway-routes")
	for _, version := range []string{"v1", "v2"} {
		servers(t, in, stage.API{Name: version, Replicas: 1, Labels: map[string]string{"version": version}})
	}
	apply(t, subsetRoutes, "-n", in)
	c := through(t, "routes.example.com", 80)
	answers(t, c, "routes.example.com is served", stage.Answer.OK)
	header := func(name, value string) stage.Caller {
		c := c
		c.Change = func(_ int, r *http.Request) { r.Header.Set(name, value) }
		return c
	}
	of := func(shares map[string]int, version string) (n int) {
		for pod, calls := range shares {
			if strings.HasPrefix(pod, version+"-") {
				n += calls
			}
		}
		return n
	}
	answers(t, header("X-Tier", "gold"), "subset v2 has its server", stage.Answer.OK)
	const calls = 400
	if shares := shared(t, header("X-Tier", "gold"), 50, 2); of(shares, "v2") != 50 {
		t.Errorf("calls with the header: %v", shares)
	}
	shares := shared(t, c, calls, 4)
	wantChance(t, "of weight 75", of(shares, "v1"), calls, 0.75)
	if of(shares, "v1")+of(shares, "v2") != calls {
		t.Errorf("calls by weight: %v", shares)
	}

	path := c
	path.Change = func(_ int, r *http.Request) { r.URL.Path = "/api/chat/completions" }
	a := path.Call(t.Context(), 0)
	if !a.OK() || a.Header.Get("X-Said") != "by-the-gateway" {
		t.Errorf("a path that is rewritten: %v, %v", a, a.Header)
	}
	requests, err := stage.PodRequests(t.Context(), cluster.KubectlWith, in, a.Pod)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(requests, func(r llmserver.Request) bool {
		return r.Path == "/v1/chat/completions" && r.Header.Get("X-Way") == "rewritten"
	}) {
		t.Errorf("%s has received no rewritten request among %d", a.Pod, len(requests))
	}
	path.Change = func(_ int, r *http.Request) { r.URL.Path = "/old" }
	if a := path.Call(t.Context(), 0); a.Status != http.StatusPermanentRedirect || a.Header.Get("Location") != "http://elsewhere.example.com/new" {
		t.Errorf("a redirect: %v, to %q", a, a.Header.Get("Location"))
	}
	if a := header("X-Fault", "yes").Call(t.Context(), 0); a.Status != http.StatusTeapot {
		t.Errorf("a fault that is made: %v", a)
	}
	aborted := 0
	for _, a := range header("X-Chaos", "yes").Calls(t.Context(), calls, 4) {
		if a.Status == http.StatusTeapot {
			aborted++
		} else if !a.OK() {
			t.Errorf("neither answered nor aborted: %v", a)
		}
	}
	wantChance(t, "faults of 30 %", aborted, calls, 0.3)
}
