package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	w3c "remora.dev/remora/sidecar/trace"
	"remora.dev/remora/test/collector"
)

// tracing starts a sidecar that sends spans to a collector, and gives also what the provider was told of traces.
func tracing(t *testing.T, to string, sample float64) (s *sidecar, told func() []http.Header) {
	t.Helper()
	var mu sync.Mutex
	var headers []http.Header
	config := providing(t, nil, func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		headers = append(headers, q.Header.Clone())
		mu.Unlock()
		_, _ = io.WriteString(w, `{"model":"qwen-turbo-2026","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}`)
	})
	f, err := os.OpenFile(config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, `---
apiVersion: v1
kind: ConfigMap
metadata: {name: remora-telemetry}
data:
  telemetry.yaml: |
    traces: {endpoint: %q, sample: %v}
`, to, sample)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, "--config", config), func() []http.Header {
		mu.Lock()
		defer mu.Unlock()
		return headers
	}
}

// chat makes a call as an app does, with headers NAME, VALUE.
func (s *sidecar) chat(headers ...string) {
	s.t.Helper()
	q, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.listen+"/v1/chat/completions", strings.NewReader(`{"model":"qwen-turbo","messages":[]}`))
	if err != nil {
		s.t.Fatal(err)
	}
	q.Host = "127.0.0.1"
	for i := 0; i < len(headers); i += 2 {
		q.Header.Add(headers[i], headers[i+1])
	}
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(q)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("%d %s %v", answer.StatusCode, body, err)
	}
}

func (s *sidecar) end() {
	s.t.Helper()
	s.signal()
	if err := s.process.Wait(); err != nil {
		s.t.Errorf("it did not end well: %v", err)
	}
}

func collecting(t *testing.T) *collector.Collector {
	t.Helper()
	c, err := collector.Start(collector.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestTheTraceOfAnAppGoesOnToTheProviderAndItsSpansToTheCollectorAtTheLatestWhenTheProcessEnds(t *testing.T) {
	c := collecting(t)
	s, told := tracing(t, c.URL, 0)
	app := w3c.New(true)
	s.chat("Traceparent", string(app.AppendHeader(nil)), "Tracestate", "vendor=1")
	s.chat() // of which none is sampled
	s.chat("Traceparent", string(w3c.New(false).AppendHeader(nil)))
	s.end()

	spans := c.Spans()
	if len(spans) != 2 {
		t.Fatalf("%d spans: %+v; faults %q", len(spans), spans, c.Faults())
	}
	request, attempt := spans[0], spans[1]
	if request.Kind != "SERVER" || request.Trace != app.Trace.String() || request.Parent != app.Span.String() || request.Name != "chat qwen-turbo" {
		t.Errorf("the request's span is %+v", request)
	}
	if request.Int("gen_ai.usage.input_tokens") != 7 || request.Int("gen_ai.usage.output_tokens") != 3 || request.Text("gen_ai.response.model") != "qwen-turbo-2026" {
		t.Errorf("the request's span says %v", request.Attributes)
	}
	if attempt.Kind != "CLIENT" || attempt.Trace != request.Trace || attempt.Parent != request.ID {
		t.Errorf("the attempt's span is %+v", attempt)
	}
	headers := told()
	if got := headers[0].Get("Traceparent"); got != "00-"+attempt.Trace+"-"+attempt.ID+"-03" || headers[0].Get("Tracestate") != "vendor=1" {
		t.Errorf("the provider was told %v", headers[0])
	}
	for _, h := range headers[1:] {
		if parsed, ok := w3c.Parse([]byte(h.Get("Traceparent"))); !ok || parsed.Sampled {
			t.Errorf("of a trace that is not sampled, the provider was told %v", h)
		}
	}
}

func TestAnAppThatTracesByItselfIsLeftAloneWhereNoCollectorIsNamed(t *testing.T) {
	s, told := tracing(t, "", 1)
	const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	s.chat("Traceparent", theirs)
	s.chat()
	s.end()
	if got := told()[0]["Traceparent"]; len(got) != 1 || got[0] != theirs {
		t.Errorf("the provider was told %q", got)
	}
	if got := told()[1]["Traceparent"]; got != nil {
		t.Errorf("the provider was told %q of a trace that there is not", got)
	}
}

func TestACollectorThatIsGoneIsNoneOfTheAppsBusiness(t *testing.T) {
	c := collecting(t)
	c.Close()
	s, _ := tracing(t, c.URL, 1)
	for range 100 {
		s.chat()
	}
	s.end()
}
