package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestTheMetricsOfALoadedSidecarAreDescribedAndHaveNoKey has a provider that tells the world the key that it is sent, wherever it can.
func TestTheMetricsOfALoadedSidecarAreDescribedAndHaveNoKey(t *testing.T) {
	const key = "sk-very-secret-0123456789"
	escaped := `sk-very-secret-012345678\u0039`
	models := []string{key, escaped, "x" + key + "x", "gpt-5"}
	at := 0
	provider := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if got := q.Header.Get("Authorization"); got != "Bearer "+key {
			t.Errorf("the provider got %q", got)
		}
		_, _ = io.Copy(io.Discard, q.Body)
		w.Header().Set("X-Key", key)
		model := models[at%len(models)]
		at++
		switch {
		case strings.HasSuffix(q.URL.Path, "/models"):
			w.WriteHeader(http.StatusTooManyRequests)
		case at%2 == 0:
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, "data: {\"model\":\"%s\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", model)
			_, _ = fmt.Fprintf(w, "data: {\"model\":\"%s\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n", model)
		default:
			_, _ = fmt.Fprintf(w, `{"model":"%s","choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`, model)
		}
	}))
	defer provider.Close()
	authority := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: provider.Certificate().Raw})))
	config := write(t, "all.yaml", fmt.Sprintf(`apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: local, namespace: default}
spec: {host: 127.0.0.1, port: %s, configs: {defaultConfig: {openAIConfig: {apiKey: %s}}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: idle, namespace: elsewhere}
spec: {host: idle.example, configs: {defaultConfig: {openAIConfig: {model: of-nobody, apiKey: sk-of-another}}}}
`, provider.URL[strings.LastIndexByte(provider.URL, ':')+1:], key))
	t.Setenv("REMORA_WORKLOAD", "Deployment/checkout")
	t.Setenv("REMORA_NAMESPACE", "shop")
	s := start(t, "--config", config, "--trusted-ca", authority)
	call := func(method, path, body string) {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.listen+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Host = "127.0.0.1"
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Error(err)
		}
	}
	for i := range 2 * len(models) {
		call(http.MethodPost, "/v1/chat/completions", fmt.Sprintf(`{"model":"m","stream":%t,"messages":[{"role":"user","content":"Hi"}]}`, i%2 == 1))
	}
	call(http.MethodGet, "/v1/models", "")
	call(http.MethodPost, "/v1/nothing", "{}")
	_, text := s.get(s.health + "/metrics")
	for _, secret := range []string{key, "very-secret", "sk-of-another", "of-nobody", "elsewhere"} {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%q is shown: %.200s", secret, text[max(0, i-100):])
		}
	}
	for _, want := range []string{
		`gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="local",gen_ai_request_model="m",gen_ai_response_model="gpt-5",provider="default/local",rule="default/local`,
		`asm_llm_proxy_prompt_tokens{llmproxy_source_workload="checkout",llmproxy_source_workload_namespace="shop",llmproxy_destination_service="127.0.0.1`,
		`error_type="429"`, "\nremora_requests_in_flight 0\n", "\nremora_added_seconds_count ", "\nremora_configuration_ready 1\n",
		`remora_workload_info{workload="Deployment/checkout"} 1`, "\nremora_configuration_age_seconds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	_, health := s.get(s.health + "/readyz")
	if generation := strings.TrimSpace(health[strings.Index(health, "=")+1:]); !strings.Contains(text, `remora_configuration_info{generation="`+generation+`"} 1`) {
		t.Errorf("%s is not what runs", health)
	}
	described := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# HELP (\S+) (.*)$`).FindAllStringSubmatch(text, -1) {
		described[m[1]] = true
		if m[1] == m[2] {
			t.Errorf("nothing is said of %s", m[1])
		}
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	out, err := check.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Errorf("promtool: %v (it is in Debian's package prometheus)", err)
	}
	for line := range strings.Lines(string(out)) {
		if !regexp.MustCompile(`^(asm_llm_proxy|go|process)_`).MatchString(line) {
			t.Error(line)
		}
	}
	if t.Failed() {
		shown, _ := json.MarshalIndent(strings.Split(regexp.MustCompile(`(?m)^(#|go_|process_|.*_bucket).*\n`).ReplaceAllString(text, ""), "\n"), "", " ")
		t.Logf("%s", shown)
	}
}
