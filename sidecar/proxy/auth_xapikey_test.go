package proxy_test

import (
	"net/http"
	"testing"

	"remora.dev/remora/test/llmserver"
)

func TestAnXAPIKeyIsTheOnlyCredential(t *testing.T) {
	r := newRig(t, providers)
	s := r.strictly(anthropic, llmserver.Options{Keys: map[string]string{anthropic: "sk-strict-0123456789"}, KeyHeaders: map[string]string{anthropic: "x-api-key"}},
		"  authScheme: x-api-key\n  configs: {defaultConfig: {openAIConfig: {model: m, apiKey: sk-strict-0123456789}}}\n")
	if got := r.do("POST", "http://"+anthropic+"/", prompt, credentials...); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	wantOneCredential(t, s, "x-api-key: sk-strict-0123456789")
}
