package metrics

import (
	"fmt"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
)

func TestSeriesGoSomeTimeAfterTheirProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		providers := []routing.Ref{{Kind: "LLMProvider", Namespace: "demo", Name: "stays"}, {Kind: "LLMProvider", Namespace: "demo", Name: "goes"}}
		s.Keep(func() iter.Seq[routing.Ref] { return slices.Values(providers) })
		observe := func(provider string) {
			r := answeredBy(provider, "gpt-5")
			r.Configured, r.Fallbacks, r.Host = true, 1, provider+".example"
			s.Observe(r, "USD")
			r.Code = routing.ClientGone
			s.Observe(r, "EUR")
		}
		observe("stays")
		observe("goes")
		s.Observe(&record.Record{Start: time.Now(), Operation: "chat", Code: routing.NoRuleMatches}, "USD")
		before := shown(s)
		providers = providers[:1]
		<-time.After(retiredTime - time.Minute)
		has(t, s, `remora_cost_total{provider="demo/goes",model="gpt-5",currency="EUR"} 0.25`, "remora_label_sets 11\n")
		<-time.After(2 * time.Minute)
		has(t, s, `remora_cost_total{provider="demo/stays",model="gpt-5",currency="EUR"} 0.25`, "remora_label_sets 6\n",
			`no remora_cost_total{provider="demo/goes"`, `no remora_fallbacks_total{provider="demo/goes"`, `no remora_model_token_parts_total{provider="demo/goes"`,
			`no asm_llm_proxy_prompt_tokens{llmproxy_destination_service="goes.example"`, `remora_fallbacks_total{provider="demo/stays"} 2`,
			`asm_llm_proxy_prompt_tokens{llmproxy_destination_service="stays.example"`,
			`gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",error_type="NoRuleMatches"} 1`)
		<-time.After(1000 * time.Hour)
		has(t, s, "remora_label_sets 6\n")
		// It comes back, and begins again.
		observe("goes")
		has(t, s, "remora_label_sets 11\n", `remora_fallbacks_total{provider="demo/goes"} 2`)
		if got := shown(s); len(got) < len(before)-100 {
			t.Errorf("%d bytes are shown, %d were", len(got), len(before))
		}
	})
}

func TestNamesOfModelsMakeRoomForOthersAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		for i := range maxModels + 1 {
			s.Observe(answeredBy("qwen", fmt.Sprint("first-", i)), "USD")
		}
		has(t, s, `no remora_cost_total{provider="demo/qwen",model="first-100"`)
		<-time.After(guestTime - time.Hour)
		s.Observe(answeredBy("qwen", "first-0"), "USD")
		r := answeredBy("qwen", "gpt-5")
		r.Configured = true
		s.Observe(r, "USD")
		<-time.After(2 * time.Hour)
		shown(s)
		s.Observe(answeredBy("qwen", "second"), "USD")
		has(t, s, `remora_cost_total{provider="demo/qwen",model="second"`, `remora_cost_total{provider="demo/qwen",model="first-0",currency="USD"} 0.5`,
			`remora_cost_total{provider="demo/qwen",model="gpt-5"`, `no remora_cost_total{provider="demo/qwen",model="first-1"`)
		<-time.After(1000 * time.Hour)
		shown(s)
		// What is left: the configured one, and what was counted as others.
		if c := s.calls; len(c.all) != 2 || len(c.asked.guest) != 0 || len(c.asked.used) != 2 || len(c.parts) != 2 || c.sets != 6 {
			t.Errorf("%d series, %v, %v, %d parts, %d sets", len(c.all), c.asked.guest, c.asked.used, len(c.parts), c.sets)
		}
	})
}

func TestTheNameOfAProviderIsOpenTelemetrys(t *testing.T) {
	f := func(endpoint, want string) {
		t.Helper()
		if got := SystemOf(endpoint); got != want {
			t.Errorf("%s is %q, want %q", endpoint, got, want)
		}
	}
	f("api.openai.com:443", "openai")
	f("acme.openai.azure.com:443", "azure.ai.openai")
	f("us-east5-aiplatform.googleapis.com", "gcp.vertex_ai")
	f("generativelanguage.googleapis.com:443", "gcp.gemini")
	f("bedrock-runtime.eu-central-1.amazonaws.com:443", "aws.bedrock")
	f("api.x.ai", "x_ai")
	f("api.mistral.ai:443", "mistral_ai")
	f("evilapi.openai.com:443", "")
	f("s3.amazonaws.com:443", "")
	f("dashscope.aliyuncs.com:443", "")
	f("[::1]:8080", "")
	f("", "")
}
