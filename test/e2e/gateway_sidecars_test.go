//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"remora.dev/remora/test/stage"
)

// modelRoutes are two names of apps' own: one for a Service, one for a pool of the same servers.
const modelRoutes = `
apiVersion: v1
kind: Service
metadata: {name: model}
spec: {selector: {app: large-language-model-api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: model}
spec:
  host: model
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets: [{name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: model}
spec:
  hosts: [model]
  http:
  - match: [{headers: {x-tier: {exact: gold}}}]
    route: [{destination: {host: model, subset: v2}}]
  - route: [{destination: {host: model}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec:
  selector: {matchLabels: {app: large-language-model-api}}
  targetPorts: [{number: 8080}]
  endpointPickerRef: {name: nobody, port: {number: 9002}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: by-service}
spec:
  host: by-service.example.com
  rules: [{backendRefs: [{backendRef: {group: "", kind: Service, name: model, port: 80}}]}]
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: by-pool}
spec:
  host: by-pool.example.com
  rules: [{backendRefs: [{backendRef: {group: inference.networking.k8s.io, kind: InferencePool, name: pool}}]}]
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: inline}
spec:
  host: inline
  port: 80
  tls: {mode: DISABLE}
  configs: {defaultConfig: {openAIConfig: {model: any}}}
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
---
apiVersion: v1
kind: Service
metadata: {name: inline}
spec: {selector: {app: large-language-model-api}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

// sidecarBalance has a sidecar balance the calls of its app over the servers of a model of one's own.
func sidecarBalance(t *testing.T) {
	t.Helper()
	in := injected(t, "e2e-gateway-sidecars")
	for version, n := range map[string]int{"v1": 2, "v2": 1} {
		servers(t, in, stage.API{Name: version, Replicas: n, Labels: map[string]string{"version": version, "remora.dev/inject": "disabled"}})
	}
	apply(t, modelRoutes, "-n", in)
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	// No DNS has the names of routes; the app calls an address that is redirected, as that of any name.
	shares := func(host string, calls int, header string) map[string]int {
		t.Helper()
		out := shell(t, in, "app", fmt.Sprintf(`for i in $(seq %d); do
  curl --silent --show-error --output /dev/null --max-time 60 --resolve %s:80:192.0.2.1 --header 'x-tier: %s' \
    --write-out '%%{http_code} %%header{x-served-by}\n' http://%[2]s/v1/chat/completions --json '%[4]s'
done`, calls, host, header, stage.Message))
		by := map[string]int{}
		for line := range strings.Lines(out) {
			by[strings.TrimSpace(line)]++
		}
		return by
	}
	even := func(host string) {
		t.Helper()
		const calls = 60
		eventually(t, host+" has its three servers", func() (string, bool) {
			by := shares(host, 6, "none")
			return fmt.Sprint(by), len(by) == 3 && !strings.Contains(fmt.Sprint(by), "503")
		})
		by := shares(host, calls, "none")
		for answer, n := range by {
			// It is one sidecar: in turn, to the call. The pool has the default, two drawn.
			if !strings.HasPrefix(answer, "200 v") || host != "by-pool.example.com" && n != calls/3 {
				t.Errorf("%s: %v", host, by)
			}
		}
		t.Logf("%s: %v", host, by)
	}
	even("by-service.example.com")
	even("by-pool.example.com")
	even("inline")
	gold := shares("by-service.example.com", 20, "gold")
	for answer := range maps.Keys(gold) {
		if !strings.HasPrefix(answer, "200 v2-") {
			t.Errorf("with the header: %v", gold)
		}
	}
}
