package accesslog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace"
)

var identity = launch.Identity{Pod: "sleep-7d9-x2", Namespace: "demo", Workload: "Deployment/sleep", ServiceAccount: "sleep", Node: "node-1"}

// full is a record in which everything happened.
func full() *record.Record {
	return &record.Record{
		Start: time.Date(2026, 11, 23, 20, 14, 3, 45e6, time.FixedZone("", 3600)), Method: "POST", Host: "demo-llm-server", Path: "/v1/chat/completions", Client: "203.0.113.7",
		RuleOwner: routing.Ref{Kind: "LLMRoute", Namespace: "demo", Name: "chat"}, Rule: "#2",
		Provider: routing.Ref{Kind: "LLMProvider", Namespace: "demo", Name: "qwen"}, Endpoint: "qwen.example:443", Server: "198.51.100.1:443", Key: "default",
		Operation: "chat", Inference: true, AskedModel: "gpt-4o", RequestModel: "qwen-turbo", Configured: true, ResponseModel: "qwen-turbo-2025",
		Status: 200, Code: routing.IdleTimeout, Cut: record.Remora, Retries: 1, Fallbacks: 1,
		Total: 412345678, FirstToken: 120 * time.Millisecond, Upstream: 400 * time.Millisecond, Added: 80 * time.Microsecond,
		RequestBytes: 1200, ResponseBytes: 34000, Stream: true, Chunks: 310, Shadow: true,
		Usage: record.Usage{Input: 25, Output: 310, Cached: 5, Reasoned: 7, Reported: true, EstimatedInput: 1, EstimatedOutput: 2, Estimated: true},
		Cost:  0.1 + 0.2, Priced: true,
		Trace:   trace.Context{Trace: trace.ID{1, 2}, Span: trace.SpanID{3}, Sampled: true},
		Capture: &record.Capture{Prompt: []byte(`{"messages":[{"role":"user","content":"Hi"}]}`), Answer: []byte("Hello there"), PromptTruncated: true, AnswerTruncated: true},
	}
}

func withCapture() *telemetry.Settings {
	s := telemetry.Default()
	s.Capture = &telemetry.Capture{Until: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Sample: 1, Bytes: 2048}
	return s
}

// written gives what a record becomes.
func written(form Form, r *record.Record, s *telemetry.Settings) string {
	var b bytes.Buffer
	New(&b, form, identity).Record(r, s)
	return b.String()
}

// fields reads a line.
func fields(t *testing.T, line string) map[string]any {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		t.Fatalf("not one line: %q", line)
	}
	return got
}

func TestALineSaysAllThatIsKnownOfARequest(t *testing.T) {
	got := written(JSON, full(), withCapture())
	want := `{"time":"2026-11-23T19:14:03.045Z","logger":"access","request_model":"qwen-turbo","request_prompt_tokens":25,"request_completion_tokens":310,` +
		`"pod":"sleep-7d9-x2","namespace":"demo","service_account":"sleep","workload":"Deployment/sleep",` +
		`"host":"demo-llm-server","rule":"demo/chat#2","provider":"demo/qwen","server":"198.51.100.1:443","key":"default","operation":"chat",` +
		`"asked_model":"gpt-4o","response_model":"qwen-turbo-2025","status":200,"code":"IdleTimeout","retries":1,"fallbacks":1,"cut_by":"remora",` +
		`"total_ms":412.345,"first_token_ms":120,"upstream_ms":400,"added_ms":0.08,"request_bytes":1200,"response_bytes":34000,"stream":true,"shadow":true,` +
		`"cached_tokens":5,"reasoning_tokens":7,"estimated_prompt_tokens":1,"estimated_completion_tokens":2,"cost":0.3,"currency":"USD",` +
		`"trace_id":"01020000000000000000000000000000","span_id":"0300000000000000","client":"203.0.113.7",` +
		`"prompt":"{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}","prompt_truncated":true,"answer":"Hello ","answer_truncated":true}` + "\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestALineLeavesOutWhatIsNotKnown(t *testing.T) {
	var b bytes.Buffer
	New(&b, JSON, launch.Identity{}).Record(&record.Record{Start: full().Start}, telemetry.Default())
	want := `{"time":"2026-11-23T19:14:03.045Z","logger":"access","total_ms":0,"added_ms":0}` + "\n"
	if b.String() != want {
		t.Errorf("got %s", b.String())
	}
}

func TestLevelAndSampleOfTheMomentDecideWhoGetsALine(t *testing.T) {
	fine := record.Record{Status: 200}
	faulty := map[string]record.Record{
		"refused": {Status: 200, Code: routing.NoRuleMatches}, "failed": {Status: 500}, "denied": {Status: 404}, "retried": {Status: 200, Retries: 1},
		"cut": {Status: 200, Cut: record.App}, "left": {},
	}
	var b bytes.Buffer
	l := New(&b, JSON, identity)
	f := func(level telemetry.Level, sample float64, fineOnes, faultyOnes bool) {
		t.Helper()
		s := &telemetry.Settings{AccessLog: telemetry.AccessLog{Level: level, Sample: sample}}
		b.Reset()
		if l.Record(&fine, s); b.Len() > 0 != fineOnes {
			t.Errorf("%s %g: one without a fault: %q", level, sample, b.String())
		}
		for what, r := range faulty {
			b.Reset()
			if l.Record(&r, s); b.Len() > 0 != faultyOnes {
				t.Errorf("%s %g: one that was %s: %q", level, sample, what, b.String())
			}
		}
	}
	f(telemetry.All, 1, true, true)
	f(telemetry.All, 0, false, true)
	f(telemetry.Errors, 1, false, true)
	f(telemetry.Off, 1, false, false)
	f("", 1, true, true)

	b.Reset()
	const calls = 20000
	for range calls {
		l.Record(&fine, &telemetry.Settings{AccessLog: telemetry.AccessLog{Level: telemetry.All, Sample: 0.25}})
	}
	if lines := bytes.Count(b.Bytes(), []byte("\n")); lines < calls*23/100 || lines > calls*27/100 {
		t.Errorf("a sample of a quarter is %d of %d", lines, calls)
	}
}

func TestPromptsAndAnswersAreThereOnlyAsLongAsSomebodyAskedForThem(t *testing.T) {
	f := func(want bool, change func(*record.Record, *telemetry.Settings)) {
		t.Helper()
		r, s := full(), withCapture()
		change(r, s)
		if got := written(JSON, r, s); strings.Contains(got, "Hello") != want || strings.Contains(got, "prompt\"") != want {
			t.Errorf("got %s", got)
		}
		if got := written(People, r, s); strings.Contains(got, "Hello") != want {
			t.Errorf("got %s", got)
		}
	}
	f(true, func(*record.Record, *telemetry.Settings) {})
	f(false, func(_ *record.Record, s *telemetry.Settings) { s.Capture = nil })
	f(false, func(r *record.Record, s *telemetry.Settings) { s.Capture.Until = r.Start })
	f(false, func(_ *record.Record, s *telemetry.Settings) { s.AccessLog.Level = telemetry.Off })
	f(true, func(_ *record.Record, s *telemetry.Settings) {
		s.AccessLog = telemetry.AccessLog{Level: telemetry.Errors}
	})
}

func TestAtATerminalALineIsShort(t *testing.T) {
	r := full()
	r.Usage.EstimatedInput, r.Usage.EstimatedOutput, r.Code, r.Cut = 0, 0, "", ""
	plainly := strings.NewReplacer(plain, "", faint, "", red, "", green, "", yellow, "").Replace(written(People, r, telemetry.Default()))
	want := r.Start.Local().Format(time.TimeOnly) + " 200 qwen-turbo 412ms first 120ms 25+310 tokens demo/chat#2 → demo/qwen 0.3 USD retries 1 from 203.0.113.7\n"
	if plainly != want {
		t.Errorf("got  %q\nwant %q", plainly, want)
	}
	if got := string(People.Missing(3)); !strings.Contains(got, "not read fast enough: 3") || strings.Count(got, "\n") != 1 {
		t.Errorf("%q", got)
	}
}

func TestALineThatStandsForMissingOnesIsOfTheSameLog(t *testing.T) {
	got := fields(t, string(JSON.Missing(12)))
	if at, err := time.Parse(time.RFC3339, got["time"].(string)); err != nil || time.Since(at) > time.Hour || got["logger"] != Name || got["missing_lines"] != 12.0 || len(got) != 3 {
		t.Errorf("%v", got)
	}
}
