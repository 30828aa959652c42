package otlp

import (
	"maps"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace"
	"remora.dev/remora/test/collector"
)

// everything is a request of which all is known: it failed at one provider, and was cut at the next.
func everything() *record.Record {
	parent := trace.New(true)
	own := parent.Child()
	start := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC)
	qwen := routing.Ref{Kind: "LLMProvider", Namespace: "demo", Name: "qwen"}
	openai := routing.Ref{Kind: "LLMProvider", Namespace: "demo", Name: "openai"}
	return &record.Record{
		Start: start, Method: "POST", Host: "demo-llm-server", Path: "/v1/chat/completions", Client: "203.0.113.7",
		RuleOwner: routing.Ref{Kind: "LLMRoute", Namespace: "demo", Name: "chat"}, Rule: "subscribers",
		Provider: openai, Endpoint: "api.openai.com:443", Server: "192.0.2.1:443", Key: "openai/key",
		Operation: "chat", Inference: true, AskedModel: "best", RequestModel: "gpt-5", ResponseModel: "gpt-5-2026-08-01", Configured: true,
		Status: 200, Code: routing.IdleTimeout, Cut: record.Remora, Retries: 1, Fallbacks: 1, Withheld: true,
		Total: 4 * time.Second, FirstToken: 1500 * time.Millisecond, Upstream: 3 * time.Second, Added: 200 * time.Microsecond,
		RequestBytes: 100, ResponseBytes: 2000, Stream: true, Chunks: 10,
		Usage: record.Usage{Input: 11, Output: 22, Cached: 5, Reasoned: 6, Reported: true, EstimatedInput: 1, EstimatedOutput: 2, Estimated: true},
		Cost:  0.25, Priced: true,
		Attempts: []record.Attempt{
			{
				Start: start.Add(time.Millisecond), Span: own.Child().Span, Provider: qwen, Server: "[2001:db8::1]:8443", Key: "qwen/key",
				Model: "qwen-turbo", Duration: time.Second, FirstByte: 900 * time.Millisecond, Status: 503, Code: routing.UpstreamRefusal,
			},
			{
				Start: start.Add(2 * time.Second), Span: own.Child().Span, Provider: openai, Server: "192.0.2.1:443", Key: "openai/key",
				Model: "gpt-5", Duration: 2 * time.Second, FirstByte: time.Second, Status: 200, Reused: true,
			},
		},
		Trace: own, Parent: parent.Span, Shadow: true,
	}
}

// sent gives the spans that a collector gets of a record.
func sent(t *testing.T, record *record.Record, s *telemetry.Settings) []collector.Span {
	t.Helper()
	c := collecting(t, collector.Options{})
	r := newRig(t)
	s.Traces.Endpoint = c.URL
	r.Record(record, s)
	r.flush()
	if faults := c.Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	spans := c.Spans()
	r.counts(len(spans), "", 0)
	return spans
}

func TestASpanOfARequestAndOneOfEachAttemptSayAllThatIsKnown(t *testing.T) {
	r := everything()
	spans := sent(t, r, telemetry.Default())
	if len(spans) != 3 {
		t.Fatalf("%d spans", len(spans))
	}
	check := func(s collector.Span, want collector.Span) {
		t.Helper()
		want.Trace, want.Scope, want.Schema = r.Trace.Trace.String(), scope, schema
		want.Resource = map[string]any{
			"service.name": "sleep", "service.namespace": "demo", "k8s.namespace.name": "demo", "k8s.pod.name": "sleep-7d9", "k8s.node.name": "node-1",
			"k8s.deployment.name": "sleep", "remora.service_account": "sleeper", "telemetry.distro.name": "remora", "telemetry.distro.version": "1.2.3",
		}
		want.Start, want.End = want.Start.Local(), want.End.Local()
		if !reflect.DeepEqual(s, want) {
			t.Errorf("got\n%+v\nwant\n%+v", s, want)
		}
	}
	check(spans[0], collector.Span{
		ID: r.Trace.Span.String(), Parent: r.Parent.String(), Name: "chat gpt-5", Kind: "SERVER", Start: r.Start, End: r.Start.Add(r.Total),
		Error: "IdleTimeout", Flags: 3 | flagKnown | flagRemote,
		Attributes: map[string]any{
			"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5", "gen_ai.response.model": "gpt-5-2026-08-01",
			"gen_ai.request.stream": true, "gen_ai.response.time_to_first_chunk": 1.5,
			"gen_ai.usage.input_tokens": int64(11), "gen_ai.usage.output_tokens": int64(22),
			"gen_ai.usage.cache_read.input_tokens": int64(5), "gen_ai.usage.reasoning.output_tokens": int64(6),
			"remora.usage.estimated_input_tokens": int64(1), "remora.usage.estimated_output_tokens": int64(2),
			"http.request.method": "POST", "url.path": "/v1/chat/completions", "server.address": "demo-llm-server", "client.address": "203.0.113.7",
			"http.response.status_code": int64(200), "http.request.body.size": int64(100), "http.response.body.size": int64(2000),
			"remora.rule": "demo/chat/subscribers", "remora.provider": "demo/openai", "remora.endpoint": "api.openai.com:443", "remora.key": "openai/key",
			"remora.asked_model": "best", "remora.retries": int64(1), "remora.fallbacks": int64(1), "remora.retry_withheld": true,
			"remora.cut_by": "remora", "remora.upstream_seconds": 3.0, "remora.added_seconds": 0.0002, "remora.cost": 0.25, "remora.currency": "USD",
			"remora.shadow": true, "error.type": "IdleTimeout",
		},
	})
	first, second := r.Attempts[0], r.Attempts[1]
	check(spans[1], collector.Span{
		ID: first.Span.String(), Parent: r.Trace.Span.String(), Name: "chat qwen-turbo", Kind: "CLIENT", Start: first.Start, End: first.Start.Add(first.Duration),
		Error: "503", Flags: 3 | flagKnown,
		Attributes: map[string]any{
			"gen_ai.operation.name": "chat", "gen_ai.provider.name": "qwen", "gen_ai.request.model": "qwen-turbo", "http.request.method": "POST",
			"http.response.status_code": int64(503), "network.peer.address": "2001:db8::1", "network.peer.port": int64(8443),
			"remora.provider": "demo/qwen", "remora.key": "qwen/key", "remora.first_byte_seconds": 0.9, "error.type": "503",
		},
	})
	check(spans[2], collector.Span{
		ID: second.Span.String(), Parent: r.Trace.Span.String(), Name: "chat gpt-5", Kind: "CLIENT", Start: second.Start, End: second.Start.Add(second.Duration),
		Flags: 3 | flagKnown,
		Attributes: map[string]any{
			"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5", "http.request.method": "POST",
			"http.request.resend_count": int64(1), "http.response.status_code": int64(200), "server.address": "api.openai.com", "server.port": int64(443),
			"network.peer.address": "192.0.2.1", "network.peer.port": int64(443), "remora.provider": "demo/openai", "remora.key": "openai/key",
			"remora.first_byte_seconds": 1.0, "remora.connection_reused": true,
		},
	})
}

func TestTheGuideHasEveryAttributeAndNoOther(t *testing.T) {
	guide, err := os.ReadFile("../../../docs/traces.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)`").FindAllSubmatch(guide, -1) {
		said[string(row[1])] = true
	}
	known := map[string]bool{}
	for _, span := range sent(t, everything(), telemetry.Default()) {
		for key := range span.Attributes {
			known[key] = true
		}
		for key := range span.Resource {
			known[key] = true
		}
	}
	for _, key := range workloadKeys {
		known[key] = true
	}
	for _, reason := range []string{droppedQueueFull, droppedRefused, droppedUnreachable, droppedInvalid, droppedShutdown} {
		known[reason] = true
	}
	if !maps.Equal(said, known) {
		t.Errorf("docs/traces.md has\n%q\nand the code\n%q", slices.Sorted(maps.Keys(said)), slices.Sorted(maps.Keys(known)))
	}
}

func TestARequestThatWentNowhereHasOneSpan(t *testing.T) {
	c := trace.New(true)
	spans := sent(t, &record.Record{
		Start: time.Now(), Method: "GET", Host: "demo-llm-server", Path: "/admin", Operation: "other", Status: 404, Code: routing.OperationNotFound, Trace: c,
	}, telemetry.Default())
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	if s.Name != "other" || s.Parent != "" || s.Error != "OperationNotFound" || s.Flags != 3|flagKnown {
		t.Errorf("%+v", s)
	}
	for _, absent := range []string{"gen_ai.usage.input_tokens", "gen_ai.request.model", "remora.provider", "remora.rule", "remora.cost", "network.peer.address"} {
		if value, there := s.Attributes[absent]; there {
			t.Errorf("%s is %v, and nothing is known of it", absent, value)
		}
	}
}

func TestAnErrorIsNamedAsInTheMetrics(t *testing.T) {
	f := func(code routing.Code, status int, want string) {
		t.Helper()
		r := sampled()
		r.Code, r.Status = code, status
		r.Attempts[0].Code, r.Attempts[0].Status = code, status
		for _, s := range sent(t, r, telemetry.Default()) {
			if s.Text("error.type") != want || s.Error != want {
				t.Errorf("%s with %d: a %s span says %q, and its status %q", code, status, s.Kind, s.Text("error.type"), s.Error)
			}
		}
	}
	f("", 200, "")
	f("", 404, "404")
	f(routing.UpstreamRefusal, 429, "429")
	f(routing.UpstreamRefusal, 0, "UpstreamRefusal")
	f(routing.KeyRefused, 401, "KeyRefused")
	f(routing.FirstTokenTimeout, 504, "FirstTokenTimeout")
	f(routing.ClientGone, 0, "ClientGone")
}

func TestUsageThatWasReportedAsNothingIsZeroAndNotMissing(t *testing.T) {
	r := sampled()
	r.Usage = record.Usage{Reported: true}
	s := sent(t, r, telemetry.Default())[0]
	for _, key := range []string{"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"} {
		if value, there := s.Attributes[key]; !there || value != int64(0) {
			t.Errorf("%s is %v", key, value)
		}
	}
}

// A collector refuses a whole request for one string that is no UTF-8.
func TestWhatAppsSayCannotSpoilTheSpansOfOthers(t *testing.T) {
	r := sampled()
	r.RequestModel = "gpt\xff\xfe" + strings.Repeat("ü", 100_000)
	r.ResponseModel = "\xc3"
	r.Path = "/v1/\x00\n\"'<script>"
	r.Host = strings.Repeat("\xf0", 1000)
	r.Cost, r.Priced = math.NaN(), true
	r.Total = -time.Hour
	r.Usage.Input = -1
	r.Endpoint, r.Attempts[0].Server = "no port", "a:b:c:99999999"
	spans := sent(t, r, telemetry.Default())
	if len(spans) != spansOfSampled {
		t.Fatalf("%d spans", len(spans))
	}
	if model := spans[0].Text("gen_ai.request.model"); !strings.HasPrefix(model, "gptüü") || len(model) > maxText {
		t.Errorf("the model is %q", model)
	}
	if path := spans[0].Text("url.path"); path != r.Path {
		t.Errorf("the path is %q", path)
	}
	if spans[0].Int("gen_ai.usage.input_tokens") != -1 {
		t.Errorf("%v", spans[0].Attributes)
	}
}

func TestAServiceIsNamedAfterWhatIsKnown(t *testing.T) {
	f := func(of launch.Identity, want string) {
		t.Helper()
		c := collecting(t, collector.Options{})
		r := newRig(t)
		r.envelope = newEnvelope(of, "1")
		r.Record(sampled(), to(c.URL))
		r.flush()
		if got := c.Spans()[0].Resource["service.name"]; got != want {
			t.Errorf("%+v: %v, want %s", of, got, want)
		}
	}
	f(launch.Identity{Workload: "Deployment/sleep", Pod: "sleep-1"}, "sleep")
	f(launch.Identity{Workload: "Rollout/sleep", Pod: "sleep-1"}, "sleep")
	f(launch.Identity{Workload: "sleep", Pod: "sleep-1"}, "sleep")
	f(launch.Identity{Pod: "sleep-1"}, "sleep-1")
	f(launch.Identity{}, unknownService)
}
