package proxy_test

import (
	"net/http"
	"testing"

	"remora.dev/remora/test/llmserver"
)

func TestABearerKeyIsTheOnlyCredential(t *testing.T) {
	for _, scheme := range []string{"", "  authScheme: Bearer\n"} {
		t.Run(scheme, func(t *testing.T) {
			r := newRig(t, providers)
			s := r.strictly(anthropic, llmserver.Options{Keys: map[string]string{anthropic: "sk-strict-0123456789"}},
				scheme+"  configs: {defaultConfig: {openAIConfig: {model: m, apiKey: sk-strict-0123456789}}}\n")
			if got := r.do("POST", "http://"+anthropic+"/", prompt, credentials...); got.status != http.StatusOK {
				t.Errorf("%+v", got)
			}
			wantOneCredential(t, s, "Authorization: Bearer sk-strict-0123456789")
		})
	}
}
