package accesslog

import (
	"encoding/json"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace"
)

// maxLine is what a line has at most without a capture.
const maxLine = 8 << 10

// filled gives a record and an identity in which every text is the same.
func filled(text string) (*record.Record, launch.Identity) {
	ref := routing.Ref{Kind: "LLMProvider", Namespace: text, Name: text}
	all := math.MaxInt64
	return &record.Record{
		Start: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Host: text, Client: text, RuleOwner: ref, Rule: text, Provider: ref, Endpoint: text, Server: text, Key: text,
		Operation: text, AskedModel: text, RequestModel: text, ResponseModel: text, Status: all, Code: routing.Code(text), Cut: record.Party(text),
		Retries: all, Fallbacks: all, Total: math.MaxInt64, FirstToken: math.MinInt64, Upstream: math.MaxInt64, Added: math.MinInt64,
		RequestBytes: math.MinInt64, ResponseBytes: math.MinInt64, Stream: true, Shadow: true,
		Usage: record.Usage{
			Input: math.MinInt64, Output: math.MinInt64, Cached: math.MinInt64, Reasoned: math.MinInt64, Reported: true,
			EstimatedInput: math.MinInt64, EstimatedOutput: math.MinInt64,
		},
		Cost: -math.MaxFloat64, Priced: true, Trace: trace.Context{Trace: trace.ID{1}},
	}, launch.Identity{Pod: text, Namespace: text, Workload: text, ServiceAccount: text, Node: text}
}

func TestWhateverIsSaidALineIsOneLineOfBoundedJSON(t *testing.T) {
	for _, text := range []string{
		"\n", "\r\n{\"logger\":\"access\"}\n", "\x00", "\x1b[2J", "\xff\xfe", "\u2028", "\u0085", "\u202e", "\"", "\\", "\\\"", "é", "模型", "\U0001F600", "\uFFFD", "<&>", "\x7f", "x\u200bx",
	} {
		for _, times := range []int{1, 83, 84, 85, 127, 128, 255, 256, 257, 10_000} {
			r, of := filled(strings.Repeat(text, times))
			s := &telemetry.Settings{AccessLog: telemetry.AccessLog{Level: telemetry.All, Sample: 1}, Prices: telemetry.Prices{Currency: r.Host}}
			var b strings.Builder
			New(&b, JSON, of).Record(r, s)
			line := b.String()
			for key, value := range fields(t, line) {
				if said, ok := value.(string); ok && (len(said) > nameRoom || strings.ContainsFunc(said, isControl)) {
					t.Errorf("%q: %q", key, said)
				}
			}
			if len(line) > maxLine {
				t.Errorf("%d times %q: %d bytes", times, text, len(line))
			}
			b.Reset()
			New(&b, People, of).Record(r, s)
			shown := strings.NewReplacer(plain, "", faint, "", red, "", green, "", yellow, "").Replace(b.String())
			if strings.ContainsFunc(strings.TrimSuffix(shown, "\n"), isControl) || len(shown) > maxLine {
				t.Errorf("a terminal gets %q", shown)
			}
		}
	}
}

func TestACostThatIsNoNumberIsLeftOut(t *testing.T) {
	for _, cost := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e300} {
		r := full()
		r.Cost = cost
		if _, there := fields(t, written(JSON, r, telemetry.Default()))["cost"]; there {
			t.Errorf("a cost of %g is there", cost)
		}
	}
}

func TestNumbersAreTheRecords(t *testing.T) {
	for _, n := range []int64{0, 1, 1 << 53, 1<<53 + 1, math.MaxInt64} {
		r := full()
		r.Usage = record.Usage{Input: n, Output: n, Cached: n, Reasoned: n, Reported: true, EstimatedInput: n, EstimatedOutput: n}
		var got struct {
			Rule             string
			RequestPrompt    *int64 `json:"request_prompt_tokens"`
			RequestAnswer    *int64 `json:"request_completion_tokens"`
			Cached           int64  `json:"cached_tokens"`
			Reasoned         int64  `json:"reasoning_tokens"`
			EstimatedPrompt  int64  `json:"estimated_prompt_tokens"`
			EstimatedOutputs int64  `json:"estimated_completion_tokens"`
		}
		if err := json.Unmarshal([]byte(written(JSON, r, telemetry.Default())), &got); err != nil {
			t.Fatal(err)
		}
		if got.RequestPrompt == nil || *got.RequestPrompt != n || *got.RequestAnswer != n || got.Cached != n || got.Reasoned != n || got.EstimatedPrompt != n || got.EstimatedOutputs != n {
			t.Errorf("%d: %+v", n, got)
		}
		if want := record.RuleText(r.RuleOwner, r.Rule); got.Rule != want {
			t.Errorf("rule %s, which metrics call %s", got.Rule, want)
		}
	}
}

func TestALineCostsNoMemory(t *testing.T) {
	r, s := full(), telemetry.Default()
	r.Capture = nil
	l := New(io.Discard, JSON, identity)
	least := math.Inf(1)
	for range 200 { // the race detector has pools forget some of what they hold
		least = min(least, testing.AllocsPerRun(1, func() { l.Record(r, s) }))
	}
	if least != 0 {
		t.Errorf("%g allocations a line", least)
	}
}

func BenchmarkLine(b *testing.B) {
	r := full()
	b.Run("line", func(b *testing.B) {
		b.ReportAllocs()
		l, s, r := New(io.Discard, JSON, identity), telemetry.Default(), *r
		r.Capture = nil
		for b.Loop() {
			l.Record(&r, s)
		}
	})
	b.Run("none", func(b *testing.B) {
		b.ReportAllocs()
		l, s := New(io.Discard, JSON, identity), &telemetry.Settings{AccessLog: telemetry.AccessLog{Level: telemetry.Off}}
		for b.Loop() {
			l.Record(r, s)
		}
	})
	b.Run("with a capture of 2 kB", func(b *testing.B) {
		b.ReportAllocs()
		l, s, r := New(io.Discard, JSON, identity), withCapture(), *r
		r.Capture = &record.Capture{Prompt: []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("What is the weather like, joe@example.com? ", 45) + `"}]}`), Answer: []byte("Fine.")}
		for b.Loop() {
			l.Record(&r, s)
		}
	})
}
