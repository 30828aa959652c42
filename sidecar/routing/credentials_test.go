package routing_test

import (
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// A sidecar of a cluster does not see the Secret that a provider names, so it must not say that this one is missing.
func TestAKeyThatIsNotHandedOverIsMissedWhereItShouldBe(t *testing.T) {
	doc := `{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"p"},
		"spec":{"host":"a.example","configs":{"defaultConfig":{"openAIConfig":{"apiKeyRef":{"name":"dashscope"}}}}}}`
	for _, secrets := range [][]routing.Secret{{}, {{Namespace: "shop", Name: "dashscope", Data: map[string]routing.Key{"other": routing.NewKey("sk-1")}}}} {
		in := routing.Objects{Secrets: secrets, KeysIn: v1beta1.KeysSecret}
		if _, err := in.Decode([]byte(doc), "shop"); err != nil {
			t.Fatal(err)
		}
		_, problems := routing.Compile(in, nil)
		const want = "Secret shop/remora-sidecar-keys, from which sidecars have what other Secrets hold, has no dashscope_apiKey for key apiKey of Secret dashscope: add it"
		if len(problems) != 1 || problems[0].Code != routing.SecretNotFound || !strings.Contains(problems[0].Message, want) {
			t.Errorf("got %v, and should say %q", problems, want)
		}
	}
}
