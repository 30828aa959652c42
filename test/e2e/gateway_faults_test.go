//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// wrong is YAML of what is wrong in several ways, beside bound's that is right. Of Gateways that were made in the same second, the first
// by name has what several claim: these come after sound.
const wrong = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: two-protocols}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: https, protocol: HTTPS}, hosts: [conflict.example.com], tls: {mode: SIMPLE, credentialName: e2e-broken}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: twin}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [sound.example.com, faults.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: broken}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [broken.example.com], tls: {mode: SIMPLE, credentialName: e2e-broken}}]
---
apiVersion: v1
kind: Service
metadata: {name: deserted}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: subsets}
spec: {host: sound, subsets: [{name: nobody, labels: {version: none}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: faults}
spec:
  hosts: [faults.example.com]
  gateways: [twin]
  http:
  - {match: [{uri: {prefix: /no-service}}], route: [{destination: {host: nowhere}}]}
  - {match: [{uri: {prefix: /no-server}}], route: [{destination: {host: deserted}}]}
  - {match: [{uri: {prefix: /no-subset}}], route: [{destination: {host: sound, subset: unknown}}]}
  - {match: [{uri: {prefix: /empty-subset}}], route: [{destination: {host: sound, subset: nobody}}]}
  - {corsPolicy: {allowMethods: [GET]}, route: [{destination: {host: sound}}]}
`

// gatewayFaults has objects that are wrong beside one that is right: each is named where people look, and to those that call.
func gatewayFaults(t *testing.T) {
	t.Helper()
	in := labelled(t, "e2e-gateway-faults")
	servers(t, in, stage.API{Name: "api", Replicas: 1})
	const host = "sound.example.com"
	apply(t, bound(host, "sound", `{}`), "-n", in)
	sound := through(t, host, 80)
	answers(t, sound, host+" is served", stage.Answer.OK)
	load := sound.Begin(t.Context(), 1, 0)
	defer load.Stop()

	apply(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: e2e-broken, namespace: %s}\nstringData: {tls.crt: no certificate, tls.key: no key}\n", v1beta1.GatewayName))
	apply(t, wrong, "-n", in)
	condition(t, in, "gateway", "two-protocols", "PortConflict")
	condition(t, in, "gateway", "twin", "HostConflict", host)
	condition(t, in, "gateway", "broken", "e2e-broken")
	condition(t, in, "virtualservice", "faults", "nowhere", "corsPolicy")

	c := through(t, "faults.example.com", 80)
	answers(t, c, "faults.example.com is served", stage.Answer.OK)
	for path, names := range map[string]string{"/no-service": "nowhere", "/no-server": "deserted", "/no-subset": "unknown", "/empty-subset": "sound"} {
		c := c
		c.Change = func(_ int, r *http.Request) { r.URL.Path = path + "/v1/chat/completions" }
		answers(t, c, path+" is answered 503 that names "+names, func(a stage.Answer) bool {
			return a.Status == http.StatusServiceUnavailable && strings.Contains(a.Body, names)
		})
	}
	if end := load.Stop(); len(end.Failed) > 0 {
		t.Errorf("what is right, beside what is wrong: %v", end)
	}
}
