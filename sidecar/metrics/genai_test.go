package metrics

import (
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
)

// answeredBy gives a request as it is when all went well.
func answeredBy(provider, model string) *record.Record {
	return &record.Record{
		Start: time.Now(), Method: "POST", Host: "chat.example", RuleOwner: routing.Ref{Kind: "LLMRoute", Namespace: "demo", Name: "chat"},
		Rule: "subscribers", Provider: routing.Ref{Kind: "LLMProvider", Namespace: "demo", Name: provider}, Endpoint: "api.openai.com:443",
		Operation: "chat", Inference: true, AskedModel: model, RequestModel: model, ResponseModel: model, Status: 200,
		Total: 300 * time.Millisecond, FirstToken: 100 * time.Millisecond, Added: 90 * time.Microsecond, Stream: true, Chunks: 5,
		Usage: record.Usage{Input: 10, Output: 20, Cached: 4, Reasoned: 3, Reported: true}, Cost: 0.25, Priced: true,
	}
}

func shown(s *Set) string {
	var b strings.Builder
	s.Write(&b)
	return b.String()
}

// has checks that each line is there, or with "no " before it that it is not.
func has(t *testing.T, s *Set, lines ...string) {
	t.Helper()
	text := "\n" + shown(s)
	for _, line := range lines {
		absent, unwanted := strings.CutPrefix(line, "no ")
		if strings.Contains(text, "\n"+absent) == unwanted {
			t.Errorf("%q: in\n%s", line, regexp.MustCompile(`(?m)^(go|process)_.*\n|^#.*\n`).ReplaceAllString(text, ""))
		}
	}
}

func TestARequestIsCountedByOpenTelemetrysNames(t *testing.T) {
	s := New()
	s.Belong(launch.Identity{Namespace: "shop", Workload: "Deployment/checkout"})
	s.Observe(answeredBy("qwen", "gpt-5"), "USD")
	const l = `{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt-5",gen_ai_response_model="gpt-5",provider="demo/qwen",rule="demo/chat/subscribers"`
	has(t, s,
		`gen_ai_client_token_usage_bucket`+l+`,gen_ai_token_type="input",precision="exact",le="4"} 0`+"\n",
		`gen_ai_client_token_usage_bucket`+l+`,gen_ai_token_type="input",precision="exact",le="16"} 1`+"\n",
		`gen_ai_client_token_usage_bucket`+l+`,gen_ai_token_type="output",precision="exact",le="64"} 1`+"\n",
		`gen_ai_client_token_usage_bucket`+l+`,gen_ai_token_type="output",precision="exact",le="67108864"} 1`+"\n",
		`gen_ai_client_token_usage_sum`+l+`,gen_ai_token_type="output",precision="exact"} 20`+"\n",
		`gen_ai_client_token_usage_count`+l+`,gen_ai_token_type="output",precision="exact"} 1`+"\n",
		`no gen_ai_client_token_usage_count`+l+`,gen_ai_token_type="input",precision="estimated"}`,
		`gen_ai_client_operation_duration_seconds_bucket`+l+`,le="0.16"} 0`+"\n",
		`gen_ai_client_operation_duration_seconds_bucket`+l+`,le="0.32"} 1`+"\n",
		`gen_ai_client_operation_duration_seconds_bucket`+l+`,le="81.92"} 1`+"\n",
		`gen_ai_client_operation_duration_seconds_sum`+l+`} 0.3`+"\n",
		`gen_ai_client_operation_time_to_first_chunk_seconds_bucket`+l+`,le="0.1"} 1`+"\n",
		`gen_ai_client_operation_time_to_first_chunk_seconds_bucket`+l+`,le="0.08"} 0`+"\n",
		`gen_ai_client_operation_time_per_output_chunk_seconds_bucket`+l+`,le="0.06"} 4`+"\n",
		`gen_ai_client_operation_time_per_output_chunk_seconds_sum`+l+`} 0.2`+"\n",
		`gen_ai_client_operation_time_per_output_chunk_seconds_count`+l+`} 4`+"\n",
		`remora_added_seconds_bucket{le="0.0001"} 1`+"\n", `remora_added_seconds_count 1`+"\n",
		`remora_model_token_parts_total{provider="demo/qwen",model="gpt-5",type="cached"} 4`+"\n",
		`remora_model_token_parts_total{provider="demo/qwen",model="gpt-5",type="reasoning"} 3`+"\n",
		`remora_cost_total{provider="demo/qwen",model="gpt-5",currency="USD"} 0.25`+"\n",
		`asm_llm_proxy_prompt_tokens{llmproxy_source_workload="checkout",llmproxy_source_workload_namespace="shop",llmproxy_destination_service="chat.example",llmproxy_model="gpt-5"} 10`+"\n",
		`asm_llm_proxy_completion_tokens{llmproxy_source_workload="checkout",llmproxy_source_workload_namespace="shop",llmproxy_destination_service="chat.example",llmproxy_model="gpt-5"} 20`+"\n",
		`remora_aborted_streams_total{by="app"} 0`+"\n", `remora_label_sets 3`+"\n",
		`no remora_fallbacks_total`,
	)
}

func TestWhatEndedBadlyIsCountedByItsError(t *testing.T) {
	f := func(change func(*record.Record), want ...string) {
		t.Helper()
		s := New()
		r := answeredBy("qwen", "gpt-5")
		r.Configured = true
		r.Usage, r.Priced, r.ResponseModel, r.Stream = record.Usage{}, false, "", false
		change(r)
		s.Observe(r, "USD")
		has(t, s, want...)
	}
	l := func(provider string) string {
		return `{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt-5",provider="demo/` + provider + `",rule="demo/chat/subscribers"`
	}
	const count = "gen_ai_client_operation_duration_seconds_count"
	f(func(r *record.Record) { r.Code = routing.FirstTokenTimeout; r.Status = 504 }, count+l("qwen")+`,error_type="FirstTokenTimeout"} 1`+"\n")
	f(func(r *record.Record) { r.Status = 429 }, count+l("qwen")+`,error_type="429"} 1`+"\n", "no asm_", "no remora_cost")
	f(func(r *record.Record) { r.Status, r.Code = 429, routing.UpstreamRefusal }, count+l("qwen")+`,error_type="429"} 1`+"\n")
	f(func(r *record.Record) { r.Status, r.Code = 0, routing.UpstreamRefusal }, count+l("qwen")+`,error_type="UpstreamRefusal"} 1`+"\n")
	f(func(r *record.Record) { r.Status = 418 }, count+l("qwen")+`,error_type="4xx"} 1`+"\n")
	f(func(r *record.Record) { r.Status = 599 }, count+l("qwen")+`,error_type="5xx"} 1`+"\n")
	f(func(r *record.Record) { r.Status = 1000 }, count+l("qwen")+`,error_type="5xx"} 1`+"\n")
	f(func(r *record.Record) { r.Fallbacks = 2 }, `remora_fallbacks_total{provider="demo/qwen"} 2`+"\n")
	f(func(r *record.Record) { r.Stream, r.Cut, r.Code = true, record.App, routing.ClientGone },
		`remora_aborted_streams_total{by="app"} 1`+"\n", `remora_aborted_streams_total{by="provider"} 0`+"\n")
	f(func(r *record.Record) {
		r.Usage = record.Usage{Input: 100, Reported: true, EstimatedOutput: 7, Estimated: true}
	}, "gen_ai_client_token_usage_sum"+l("qwen")+`,gen_ai_token_type="input",precision="exact"} 100`+"\n",
		"gen_ai_client_token_usage_sum"+l("qwen")+`,gen_ai_token_type="output",precision="estimated"} 7`+"\n")
	// Before a rule or provider was found, nothing is known but that it failed.
	f(func(r *record.Record) {
		*r = record.Record{Start: r.Start, Host: "chat.example", Operation: "other", Code: routing.NoRuleMatches, Status: 404}
	}, count+`{gen_ai_operation_name="other",error_type="NoRuleMatches"} 1`+"\n", "no remora_model_token_parts_total")
	f(func(r *record.Record) { *r = record.Record{Start: r.Start} }, count+" 1\n")
}

func TestACopyForAMirrorTakesTokensAndNobodysTime(t *testing.T) {
	s := New()
	r := answeredBy("qwen", "gpt-5")
	r.Shadow = true
	s.Observe(r, "USD")
	has(t, s, "asm_llm_proxy_prompt_tokens", "gen_ai_client_token_usage_count", "remora_cost_total", "remora_added_seconds_count 0\n", "no gen_ai_client_operation")
}

func series1(s *Set) int {
	return strings.Count(shown(s), "\ngen_ai_client_operation_duration_seconds_count")
}

func TestInventedModelsChangeOneCounter(t *testing.T) {
	s := New()
	for i := range 100_000 {
		r := answeredBy("qwen", fmt.Sprintf("invented-%d", i))
		r.Status, r.ResponseModel, r.Usage = 404, "", record.Usage{}
		s.Observe(r, "USD")
	}
	if n := series1(s); n != 1 {
		t.Errorf("%d label sets of models that no provider took", n)
	}
	has(t, s, `gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="other",provider="demo/qwen",rule="demo/chat/subscribers",error_type="404"} 100000`)

	// A provider that takes whatever it is asked for, and says it back.
	for i := range 100_000 {
		s.Observe(answeredBy("qwen", fmt.Sprintf("taken-%d", i)), "USD")
	}
	if n := series1(s); n != 1+maxModels+1 {
		t.Errorf("%d label sets of models that a provider took", n)
	}
	has(t, s, `asm_llm_proxy_prompt_tokens{llmproxy_destination_service="chat.example",llmproxy_model="other"} 999000`,
		`asm_llm_proxy_prompt_tokens{llmproxy_destination_service="chat.example",llmproxy_model="taken-99"} 10`,
		`no asm_llm_proxy_prompt_tokens{llmproxy_destination_service="chat.example",llmproxy_model="taken-100"}`)
	// One that is configured is shown nevertheless, and one that was let in goes on being counted by its name when it fails.
	r := answeredBy("qwen", "gpt-5")
	r.Configured = true
	s.Observe(r, "USD")
	r = answeredBy("qwen", "taken-1")
	r.Status, r.ResponseModel = 500, ""
	s.Observe(r, "USD")
	has(t, s, `remora_cost_total{provider="demo/qwen",model="gpt-5",currency="USD"} 0.25`,
		`gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="taken-1",provider="demo/qwen",rule="demo/chat/subscribers",error_type="500"} 1`)
}

func TestAnswersOfManyModelsAreOneLabelSetEach(t *testing.T) {
	s := New()
	for i := range 100_000 {
		r := answeredBy("qwen", "gpt-5")
		r.Configured, r.ResponseModel = true, fmt.Sprintf("gpt-5-of-today-%d", i)
		s.Observe(r, "USD")
	}
	if n := series1(s); n != maxModels+1 {
		t.Errorf("%d label sets", n)
	}
}

func TestLabelSetsEnd(t *testing.T) {
	s := New()
	for i := range 100_000 {
		r := answeredBy(fmt.Sprint("provider-", i%5000), fmt.Sprint("model-", i%7))
		r.Configured, r.Host = true, fmt.Sprint("host-", i)
		r.Rule, r.Code = fmt.Sprint("rule-", i), routing.Code(fmt.Sprint("Code", i%50))
		s.Observe(r, "USD")
	}
	if n := len(s.calls.all); n > maxSets+1 {
		t.Errorf("%d series", n)
	}
	if n := s.calls.sets; n > maxSets+60 {
		t.Errorf("%d label sets", n)
	}
	has(t, s, `gen_ai_client_token_usage_sum{gen_ai_operation_name="other",gen_ai_provider_name="other",gen_ai_request_model="other",gen_ai_response_model="other",provider="other",rule="other",gen_ai_token_type="input",precision="exact"}`,
		`asm_llm_proxy_prompt_tokens{llmproxy_destination_service="other",llmproxy_model="other"}`)
	var tokens int
	for _, m := range regexp.MustCompile(`(?m)^gen_ai_client_token_usage_sum\{.*gen_ai_token_type="input".* (\d+)$`).FindAllStringSubmatch(shown(s), -1) {
		var n int
		_, _ = fmt.Sscan(m[1], &n)
		tokens += n
	}
	if tokens != 1_000_000 {
		t.Errorf("%d tokens are counted of 1000000", tokens)
	}
	t.Logf("%d bytes are the most", len(s.Append(nil)))
	lint(t, shown(s))
}

// lint has Prometheus' own tool read what is written, and looks for what it overlooks: a series that comes twice.
func lint(t *testing.T, text string) {
	t.Helper()
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		series := line[:strings.LastIndexByte(line, ' ')]
		if seen[series] && !strings.HasPrefix(line, "#") {
			t.Errorf("twice: %.300s", series)
		}
		seen[series] = true
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	out, err := check.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		switch {
		// ASM's names, and those that VictoriaMetrics' library gives to what Go's runtime and the kernel count.
		case strings.HasPrefix(line, "asm_llm_proxy_"), strings.HasPrefix(line, "go_"), strings.HasPrefix(line, "process_"):
		default:
			t.Errorf("promtool check metrics: %s", line)
			err = nil
		}
	}
	if err != nil && len(out) == 0 {
		t.Errorf("promtool check metrics: %v (it is in Debian's package prometheus)", err)
	}
}

func TestHostileNamesStayInTheirQuotes(t *testing.T) {
	for _, name := range []string{
		`"} 1` + "\nremora_failures_total 9 #", "a\nb", "a\\", `a"b`, "a\xff\xfeb", "\x00", "\u2028", strings.Repeat("x", 1<<20), "{}", "other", "",
		"日本語", strings.Repeat("語", 1000), "\u202eevil", `\n`,
	} {
		for _, known := range []bool{false, true} {
			s := New()
			r := answeredBy("qwen", name)
			r.Configured, r.Rule, r.Host = known, name, name
			s.Observe(r, name)
			r.ResponseModel += "!"
			s.Observe(r, name)
			text := shown(s)
			lint(t, text)
			if strings.Contains(text, "\nremora_failures_total 9") {
				t.Errorf("%.100q brought a line of its own", name)
			}
			if len(text) > 400_000 {
				t.Errorf("%.100q is shown in %d bytes", name, len(text))
			}
		}
	}
}

func TestWhoReadsAndWhoCountsDoNotDisturbEachOther(t *testing.T) {
	s := New()
	var all sync.WaitGroup
	const each = 3000
	for g := range 4 {
		all.Go(func() {
			for i := range each {
				r := answeredBy(fmt.Sprint("p", i%3), fmt.Sprint("m", i%300))
				r.Host = fmt.Sprint("h", (i+g)%2)
				if i%5 == 0 {
					r.Code = routing.ClientGone
				}
				s.Observe(r, "USD")
			}
		})
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					s.Write(io.Discard)
				}
			}
		})
	}
	all.Wait()
	close(done)
	readers.Wait()
	has(t, s, fmt.Sprintf("remora_added_seconds_count %d\n", 4*each))
	var asked int
	for _, m := range regexp.MustCompile(`(?m)^asm_llm_proxy_prompt_tokens\{.* (\d+)$`).FindAllStringSubmatch(shown(s), -1) {
		var n int
		_, _ = fmt.Sscan(m[1], &n)
		asked += n
	}
	if asked != 4*each*10 {
		t.Errorf("%d tokens, want %d", asked, 4*each*10)
	}
}
