package routing_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// What a rule compares a header with may be somebody's credential, also where it is written wrongly.
func TestWhatARuleComparesWithIsNotShown(t *testing.T) {
	for _, match := range []string{`{"exact":"Bearer sk-1-${KEY}"}`, `{"prefix":"sk-1-${KEY}"}`, `{"regex":"sk-1-["}`, `{"regex":"(sk-1-"}`} {
		in := routing.Objects{}
		doc := `{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMRoute","metadata":{"name":"r"},"spec":{"host":"a.example","rules":[
			{"matches":[{"headers":{"authorization":` + match + `}}],"backendRefs":[{"providerHost":"b.example"}]}]}}`
		if _, err := in.Decode([]byte(doc), "shop"); err != nil {
			t.Fatal(err)
		}
		problems := routing.Judge(in)
		if text := fmt.Sprint(problems); len(problems) < 2 || strings.Contains(text, "sk-1") {
			t.Errorf("%s: %s", match, text)
		}
	}
}

// Judging goes on when the API server has given up on it, so it has to end, whatever a route holds.
func TestARouteOfSlowExpressionsIsJudgedWithinBounds(t *testing.T) {
	r := v1beta1.LLMRoute{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "shop"}, Spec: v1beta1.LLMRouteSpec{Host: "a.example"}}
	value, regex := strings.Repeat("a", 1000), "(a|aa|aaa){100}b"
	for i := range v1beta1.MaxRules {
		m := v1beta1.StringMatch{Exact: &value}
		if i < 2 { // more of them take more memory than a route may have
			m = v1beta1.StringMatch{Regex: &regex}
		}
		rule := v1beta1.LLMRule{BackendRefs: []v1beta1.LLMBackendRef{{ProviderHost: "b.example"}}}
		for range v1beta1.MaxMatches {
			rule.Matches = append(rule.Matches, v1beta1.LLMRequestMatch{Model: &m})
		}
		r.Spec.Rules = append(r.Spec.Rules, rule)
	}
	done := make(chan []routing.Problem)
	go func() { done <- routing.Judge(routing.Objects{Routes: []v1beta1.LLMRoute{r}}) }()
	select {
	case problems := <-done:
		for _, p := range problems {
			if p.Severity == routing.Invalid {
				t.Fatalf("it is not judged to the end: %s", p)
			}
		}
	case <-time.After(5 * time.Second): // without a bound it takes twice that, with one a hundredth
		t.Error("it is still being judged")
	}
}
