package integration

import (
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
)

const shown = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen, namespace: columns}
spec:
  host: dashscope.aliyuncs.com
  configs: {defaultConfig: {openAIConfig: {model: qwen-turbo}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: chat, namespace: columns}
spec:
  host: chat
  rules:
  - name: vip-route
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]
`

func (m manifests) kubectlGetTellsHowAnObjectFares(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	m.must(t, "wait", "--for=condition=Established", "crd", "-l", ours)
	m.must(t, "delete", "validatingwebhookconfiguration", v1beta1.WebhookName) // nobody answers here
	m.must(t, "create", "namespace", "columns")
	t.Cleanup(func() { m.must(t, "delete", "namespace", "columns", "--wait=false") })
	m.eventually(t, func() (string, bool) { // a moment after its deletion the webhook is still asked
		out, err := m.KubectlWith(t.Context(), shown, "apply", "-f", "-")
		return out, err == nil
	})
	const at = `"lastTransitionTime":"2026-01-02T03:04:05Z"`
	for object, conditions := range map[string]string{
		"llmprovider/qwen": `{"type":"Accepted","status":"False","reason":"HostConflict","message":"another one is older",` + at + `},{"type":"ResolvedRefs","status":"True","reason":"ResolvedRefs","message":"all there",` + at + `}`,
		"llmroute/chat":    `{"type":"Accepted","status":"True","reason":"Accepted","message":"in use",` + at + `},{"type":"ResolvedRefs","status":"False","reason":"NoProvider","message":"no provider has that host",` + at + `}`,
	} {
		m.must(t, "-n", "columns", "patch", object, "--subresource=status", "--type=merge", "-p", `{"status":{"rules":"vip-route, 2","conditions":[`+conditions+`]}}`)
	}
	// Short names and the category find them too.
	for _, names := range []string{"llmproviders,llmroutes", "llmp,llmr", "llm"} {
		rows := fields(m.must(t, "-n", "columns", "get", names))
		for _, want := range []string{
			"NAME HOST MODEL ACCEPTED RESOLVED AGE", "llmprovider.istio.alibabacloud.com/qwen dashscope.aliyuncs.com qwen-turbo False True",
			"NAME HOST RULES ACCEPTED RESOLVED AGE", "llmroute.istio.alibabacloud.com/chat chat vip-route, 2 True False",
		} {
			if !strings.Contains(rows, want) {
				t.Errorf("kubectl get %s lacks %q:\n%s", names, want, rows)
			}
		}
	}
	wide := fields(m.must(t, "-n", "columns", "get", "llm", "-o", "wide"))
	for _, want := range []string{"False True HostConflict another one is older", "True False NoProvider no provider has that host"} {
		if !strings.Contains(wide, want) {
			t.Errorf("kubectl get -o wide lacks %q:\n%s", want, wide)
		}
	}
}

// fields puts one space between the words of each line.
func fields(table string) string {
	lines := strings.Split(table, "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}

func (m manifests) kubectlExplainTeaches(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	m.must(t, "wait", "--for=condition=Established", "crd", "-l", ours)
	for path, wants := range map[string][]string{
		"llmroute.spec.rules":                               {"the first one that matches decides", "- name: vip-route", "weight: 50", "One is drawn", "always matches"},
		"llmroute.spec.rules.matches":                       {`entries mean "or"`, "sourceLabels", "headers"},
		"llmroute.spec.rules.retries":                       {"connect-failure", "Default: 2"},
		"llmroute.spec.rules.timeouts":                      {"30s, 5m or 1m30s", "Default: 5m"},
		"llmprovider.spec":                                  {"Default: 443", "-required-", "qwen-turbo"},
		"llmprovider.spec.tls":                              {"MUTUAL", "caBundle"},
		"llmprovider.spec.authScheme":                       {"api-key", "Azure", "none of the app's own credentials"},
		"llmprovider.spec.query":                            {"api-version", "no place for a secret", "without %XX"},
		"llmprovider.spec.trafficPolicy":                    {"consecutive5xxErrors: 3", "maxConnections: 100"},
		"llmprovider.spec.trafficPolicy.connectionPool.tcp": {"Default: 1024", "Default: 10s", "Default: 10m"},
		"llmprovider.spec.trafficPolicy.outlierDetection":   {"Default: 5", "Default: 30s", "at most 24h"},
		"llmroute.spec.rules.limits":                        {"Default: 64Mi", "413"},
		"llmprovider.status":                                {"Accepted", "ResolvedRefs"},
		"llmp.spec.configs.routeSpecificConfigs":            {"LLMRoute rule of that name"},
		"llmr.spec.rules.backendRefs.hostRewrite":           {"Refused where a key is sent"},
	} {
		var text string
		m.eventually(t, func() (string, bool) { // the schema is published a moment after the CRD
			out, err := m.Kubectl(t.Context(), "explain", path)
			text = strings.Join(strings.Fields(out), " ")
			return out, err == nil
		})
		for _, want := range wants {
			if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
				t.Errorf("kubectl explain %s does not say %q:\n%s", path, want, text)
			}
		}
	}
	// kubectl breaks lines at 80 characters: a longer one in a comment becomes a long and a short one.
	for _, kind := range []string{"llmprovider.spec", "llmroute.spec", "llmroute.spec.rules", "llmroute.spec.rules.backendRefs"} {
		for _, line := range strings.Split(m.must(t, "explain", kind), "\n") {
			if len(line) > 80 {
				t.Errorf("kubectl explain %s: a line of %d characters: %s", kind, len(line), line)
			}
		}
	}
	for _, kind := range []string{"llmprovider", "llmroute"} {
		for _, line := range strings.Split(m.must(t, "explain", kind, "--recursive"), "\n") {
			if strings.Contains(line, "<") && strings.Contains(line, "x-kubernetes") {
				t.Errorf("kubectl explain %s --recursive: %s", kind, line)
			}
		}
	}
}
