//go:build linux

package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
)

// egressAtApp is what the namespace of an app has: the provider's name, and the way to it, which is the gateway. No key.
const egressAtApp = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: way-out}
spec:
  host: remora-gateway.remora-gateway.svc.cluster.local
  port: 80
  path: /v1/chat/completions
  tls: {mode: DISABLE}
  configs: {defaultConfig: {openAIConfig: {}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: llm}
spec:
  host: egress.example.com
  rules: [{backendRefs: [{providerHost: remora-gateway.remora-gateway.svc.cluster.local, hostRewrite: egress.example.com}]}]
`

// egressAtGateway is what the gateway's namespace has: the provider, its key, and the route of which gateways know.
const egressAtGateway = `
apiVersion: v1
kind: Secret
metadata: {name: e2e-egress}
stringData: {apiKey: %s}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: e2e-egress}
spec:
  host: ` + example + `
  workloadSelector: {labels: {app: remora-gateway}}
  path: /v1/chat/completions
  configs: {defaultConfig: {openAIConfig: {model: small, apiKeyRef: {name: e2e-egress}}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: e2e-egress}
spec:
  selector: {app: remora-gateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [egress.example.com]}]
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: e2e-egress}
spec:
  host: egress.example.com
  gateways: [e2e-egress]
  rules: [{backendRefs: [{providerHost: ` + example + `}]}]
`

// gatewayEgress has an app call a provider by way of sidecar and gateway. The key is the gateway's alone.
func gatewayEgress(t *testing.T) {
	t.Helper()
	const key, words = "sk-of-the-way-out", "on the way out"
	in := injected(t, "e2e-gateway-egress")
	apply(t, egressAtApp, "-n", in)
	apply(t, fmt.Sprintf(egressAtGateway, key), "-n", v1beta1.GatewayName)
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	// No DNS has the name; the app calls an address that is redirected, as that of any name.
	call := strings.Replace(ask("egress.example.com", words), "curl ", "curl --resolve egress.example.com:80:192.0.2.1 ", 1)
	eventually(t, "the app is answered by way of the gateway", func() (string, bool) {
		out, err := cluster.KubectlWith(t.Context(), call, "-n", in, "exec", "-i", "app", "--", "sh")
		return out, err == nil
	})
	all := received(t, atAnybody, words)
	if len(all) == 0 {
		t.Fatal("the provider has received nothing")
	}
	for _, r := range all {
		if !r.TLS || r.SNI != example || r.Host != example || r.Header.Get("Authorization") != "Bearer "+key || !strings.Contains(string(r.Body), `"model":"small"`) {
			t.Errorf("the provider received %+v", r)
		}
	}
	// What the sidecars of the app's namespace may read has no key, in any form.
	secrets := kubectl(t, "-n", in, "get", "secrets", "-o", "jsonpath={.items[*].data}")
	for _, form := range []string{key, base64.StdEncoding.EncodeToString([]byte(key))} {
		if strings.Contains(secrets, form) {
			t.Errorf("the key is in a Secret of %s", in)
		}
	}
	has(t, "the gateway's Secret", kubectl(t, "-n", v1beta1.GatewayName, "get", "secret", v1beta1.KeysSecret, "-o", "jsonpath={.data}"),
		base64.StdEncoding.EncodeToString([]byte(key)))
}
