package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace"
	"remora.dev/remora/test/llmserver"
)

const appsTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestAnAppsTraceGoesOnAtTheProvider(t *testing.T) {
	r, c := observed(t, providers)
	r.telemetry(func(s *telemetry.Settings) { s.Traces.Endpoint, s.Traces.Sample = "http://collector", 1 })
	for _, flags := range []string{"00", "01"} {
		given := strings.TrimSuffix(appsTrace, "01") + flags
		r.do("POST", "http://"+qwen, prompt, "Traceparent", given, "Tracestate", "vendor=x")
		parent, _ := trace.Parse([]byte(given))
		got := c.only(t)
		if got.Parent != parent.Span || got.Trace.Trace != parent.Trace || got.Trace.Sampled != (flags == "01") || got.Trace.Span == parent.Span {
			t.Errorf("%s became %+v of %v", given, got.Trace, got.Parent)
		}
		h := r.last().Header
		sent, ok := trace.Parse([]byte(h.Get("Traceparent")))
		if !ok || len(h.Values("Traceparent")) != 1 || sent.Trace != parent.Trace || sent.Span != got.Attempts[0].Span || sent.Span == got.Trace.Span || sent.Sampled != parent.Sampled {
			t.Errorf("the provider got %q of %+v", h.Values("Traceparent"), got)
		}
		if s := h.Values("Tracestate"); len(s) != 1 || s[0] != "vendor=x" {
			t.Errorf("tracestate %q", s)
		}
	}
}

func TestWhereTheAppHasNoTraceOneBegins(t *testing.T) {
	r, c := observed(t, providers)
	for _, sample := range []float64{0, 1} {
		r.telemetry(func(s *telemetry.Settings) { s.Traces.Endpoint, s.Traces.Sample = "http://collector", sample })
		for _, given := range []string{"", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01", appsTrace + "\r\nTraceparent: " + appsTrace} {
			header := ""
			if given != "" {
				header = "Traceparent: " + given + "\r\n"
			}
			if _, err := r.raw(post("/", lengthOf(prompt)+header+"Tracestate: vendor=x\r\nConnection: close\r\n", prompt)); err != nil {
				t.Fatal(err)
			}
			got := c.only(t)
			if got.Trace.IsZero() || got.Parent != (trace.SpanID{}) || got.Trace.Sampled != (sample == 1) || got.Trace.Trace.String() == "0af7651916cd43dd8448eb211c80319c" {
				t.Errorf("%q: %+v", given, got.Trace)
			}
			h := r.last().Header
			if sent, ok := trace.Parse([]byte(h.Get("Traceparent"))); !ok || sent.Trace != got.Trace.Trace || len(h.Values("Traceparent")) != 1 || h.Values("Tracestate") != nil {
				t.Errorf("%q: the provider got %q %q", given, h.Values("Traceparent"), h.Values("Tracestate"))
			}
		}
	}
}

func TestEachAttemptHasASpanOfItsOwn(t *testing.T) {
	r, c := observed(t, providers)
	r.telemetry(func(s *telemetry.Settings) { s.Traces.Endpoint, s.Traces.Sample = "http://collector", 1 })
	r.provider.Script("", llmserver.Fault{Status: 429, RetryAfter: "0"})
	r.do("POST", "http://"+qwen, prompt)
	got := c.only(t)
	if len(got.Attempts) != 2 || got.Attempts[0].Span == got.Attempts[1].Span {
		t.Fatalf("attempts %+v", got.Attempts)
	}
	for i, q := range r.provider.Requests() {
		if sent, _ := trace.Parse([]byte(q.Header.Get("Traceparent"))); sent.Span != got.Attempts[i].Span || sent.Trace != got.Trace.Trace {
			t.Errorf("attempt %d: %q", i, q.Header.Get("Traceparent"))
		}
	}
}

func TestWithoutACollectorTracesPassAsTheyAre(t *testing.T) {
	r, c := observed(t, providers)
	r.do("POST", "http://"+qwen, prompt, "Traceparent", "whatever", "Tracestate", "vendor=x")
	if h := r.last().Header; h.Get("Traceparent") != "whatever" || h.Get("Tracestate") != "vendor=x" {
		t.Errorf("the provider got %v", h)
	}
	if got := c.only(t); !got.Trace.IsZero() || got.Attempts[0].Span != (trace.SpanID{}) {
		t.Errorf("got %+v", got)
	}
}

func TestACaptureHasTheBeginningOfPromptAndAnswerWithoutKeys(t *testing.T) {
	r, c := observed(t, providers)
	capture := func(until time.Time, share float64, bytes int) {
		r.telemetry(func(s *telemetry.Settings) { s.Capture = &telemetry.Capture{Until: until, Sample: share, Bytes: bytes} })
	}
	later := time.Now().Add(time.Hour)
	capture(later, 1, 1024)
	for _, body := range []string{prompt, streamed} {
		r.provider.Script("", llmserver.Fault{Reflect: true})
		reply := r.do("POST", "http://"+qwen, body)
		got := c.only(t).Capture
		if got == nil || string(got.Prompt) != body || !strings.HasPrefix(reply.body, string(got.Answer)) || !strings.Contains(string(got.Answer), `"reflected"`) && !strings.Contains(string(got.Answer), "[DONE]") || got.PromptTruncated || got.AnswerTruncated {
			t.Errorf("captured %+v of %s", got, reply.body)
		} else if strings.Contains(string(got.Answer), "sk-qwen") {
			t.Errorf("a key is in %s", got.Answer)
		}
	}
	long := `{"stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("word ", 40<<10) + `"}]}`
	capture(later, 1, telemetry.MaxCaptureBytes*10)
	r.provider.Script("", llmserver.Fault{Chunks: 1000})
	reply := r.do("POST", "http://"+qwen, long)
	if got := c.only(t).Capture; len(got.Prompt) != 64<<10 || !got.PromptTruncated || len(got.Answer) != 64<<10 || !got.AnswerTruncated || !strings.HasPrefix(reply.body, string(got.Answer)) {
		t.Errorf("captured %d %t and %d %t bytes", len(got.Prompt), got.PromptTruncated, len(got.Answer), got.AnswerTruncated)
	}
	for name, set := range map[string]func(){
		"its time is over": func() { capture(time.Now().Add(-time.Second), 1, 1024) }, "it is not drawn": func() { capture(later, 0, 1024) }, "nobody asks": func() { r.telemetry(func(*telemetry.Settings) {}) },
	} {
		set()
		r.do("POST", "http://"+qwen, prompt)
		if got := c.only(t); got.Capture != nil {
			t.Errorf("%s: %+v", name, got.Capture)
		}
	}
}

func TestAProviderThatSaysTheKeyForAModelTellsItToNobody(t *testing.T) {
	r, c := observed(t, providers)
	for model, want := range map[string]string{
		"sk-qwen-0123456789": "******************", "a\\/b": "a/b", strings.Repeat("m", 200): strings.Repeat("m", 128),
		strings.Repeat("m", 120) + "sk-qwen-0123456789": strings.Repeat("m", 120), "\\u00e9\xff": "",
	} {
		r.provider.Script("", llmserver.Fault{Body: `{"id":"x","model":"` + model + `","usage":{"prompt_tokens":1,"completion_tokens":2}}`})
		r.do("POST", "http://"+qwen, prompt)
		if got := c.only(t); got.ResponseModel != want && want != "" || strings.ToValidUTF8(got.ResponseModel, "") != strings.ReplaceAll(got.ResponseModel, "\xff", "") || got.Usage.Output != 2 {
			t.Errorf("%q became %q, %+v", model, got.ResponseModel, got.Usage)
		}
	}
}

func TestACopyForAMirrorHasARecordOfItsOwn(t *testing.T) {
	c := newRecorder()
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - route: [{destination: {host: api}}]
    mirror: {host: other}`), c.option)
	if got := g.call("GET", "http://api.example.com/a", ""); got.status != 200 {
		t.Fatal(got.body)
	}
	shadows := 0
	for _, got := range c.await(t, 2) {
		if got.Status != 200 || got.Host != "api.example.com" || got.Client != "127.0.0.1" || got.Path != "/a" || len(got.Attempts) != 1 {
			t.Errorf("got %+v", got)
		}
		if got.Shadow {
			shadows++
			if got.Provider.Name != "other" {
				t.Errorf("the copy: %+v", got)
			}
		}
	}
	if shadows != 1 {
		t.Errorf("%d are copies", shadows)
	}
}

func TestAGatewayHasARecordOfWhatItRefuses(t *testing.T) {
	c := newRecorder()
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", toAPI), c.option)
	g.call("GET", "http://api.example.com/a", "")
	if got := c.only(t); got.Host != "api.example.com" || got.Endpoint != "api.default.svc.cluster.local:80" && got.Endpoint != "api.default.svc:80" || got.Code != "" || got.Client == "" {
		t.Errorf("got %+v", got)
	}
	g.call("GET", "http://nobody.example.com/a", "")
	if got := c.only(t); got.Host != "nobody.example.com" || got.Code != routing.HostNotServed || got.Status != 404 || got.Client != "127.0.0.1" {
		t.Errorf("got %+v", got)
	}
	g.call("GET", "http://api.example.com/a/../b", "")
	if got := c.only(t); got.Code != routing.InvalidRequest {
		t.Errorf("got %+v", got)
	}
}

func TestWhatIsPassedOnUnseenIsCounted(t *testing.T) {
	r, c := observed(t, providers)
	remote(t, "127.0.0.6:8080", func(conn *net.TCPConn) {
		line, _ := bufio.NewReader(conn).ReadString('\n')
		_, _ = io.WriteString(conn, "you said "+line)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
	w := r.dial()
	w.send("CONNECT 127.0.0.6:8080 HTTP/1.1\r\nHost: 127.0.0.6:8080\r\n\r\n")
	if resp, err := http.ReadResponse(w.in, &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	w.send("hello\n")
	if got, err := io.ReadAll(w.in); err != nil || string(got) != "you said hello\n" {
		t.Fatalf("%q %v", got, err)
	}
	_ = w.Close()
	for name, want := range map[string]int{"remora_spliced_connections_total": 1, `remora_spliced_bytes_total{direction="sent"}`: 6, `remora_spliced_bytes_total{direction="received"}`: 15} {
		r.await(name, want)
	}
	if n := len(c.records()); n != 0 {
		t.Errorf("%d records", n)
	}
}

func TestAHundredThousandNamesLeaveNothingBehind(t *testing.T) {
	r, c := observed(t, providers)
	for i := range 300 {
		name := fmt.Sprintf("model-%d-", i) + strings.Repeat("é", 100)
		r.do("POST", "http://"+vllm+"/v1/chat/completions", strings.Replace(prompt, "{", `{"model":"`+name+`",`, 1))
		got := c.only(t)
		if len(got.AskedModel) > 131 || !strings.HasPrefix(got.AskedModel, name[:100]) || got.Configured || got.RequestModel != got.AskedModel || strings.ToValidUTF8(got.AskedModel, "") != got.AskedModel {
			t.Fatalf("asked for %q: %+v", name, got)
		}
	}
}

func TestAWaitForAFreeConnectionIsNobodysTime(t *testing.T) {
	r, c := observed(t, strings.Replace(providers, "  host: vllm.models.svc.cluster.local\n", "  host: vllm.models.svc.cluster.local\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}\n", 1))
	r.provider.Script("", llmserver.Fault{Delay: 200 * time.Millisecond, Times: -1})
	both := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := r.try("POST", "http://"+vllm+"/v1/chat/completions", strings.Replace(prompt, "{", `{"model":"m",`, 1))
			both <- err
		}()
	}
	for range 2 {
		if err := <-both; err != nil {
			t.Fatal(err)
		}
	}
	all := c.await(t, 2)
	first, second := all[0], all[1]
	if second.Total < 300*time.Millisecond || second.Total-second.Upstream-second.Added < first.Total/2 || second.Upstream < 200*time.Millisecond || !second.Attempts[0].Reused {
		t.Errorf("first %s %s %s, second %s %s %s", first.Total, first.Upstream, first.Added, second.Total, second.Upstream, second.Added)
	}
	if first.Cut != record.Nobody || second.Code != "" {
		t.Errorf("%+v", all)
	}
}

// What is broken in any place has a record or none, and leaves nothing behind: neither a fault, nor a request that is counted for ever.
func TestBrokenRequestsLeaveNoRecordOpen(t *testing.T) {
	r, c := observed(t, providers)
	r.telemetry(func(s *telemetry.Settings) {
		s.Traces.Endpoint, s.Capture = "http://collector", &telemetry.Capture{Until: time.Now().Add(time.Hour), Sample: 1}
	})
	random := rand.New(rand.NewPCG(8, 8))
	pieces := []string{"\r\n", "\x00", "\xff\xfe", " ", ":", "Host: x\r\n", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n", "traceparent: " + appsTrace + "\r\n", "#", "http://[::1", "CONNECT ", "%", "Content-Length: 99999999999\r\n", strings.Repeat("a", 20<<10)}
	for range 400 {
		text := post("/v1/chat/completions", lengthOf(streamed)+"Traceparent: "+appsTrace+"\r\n", streamed)
		for range 1 + random.IntN(3) {
			at := random.IntN(len(text))
			text = text[:at] + pieces[random.IntN(len(pieces))] + text[min(len(text), at+random.IntN(4)):]
		}
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	r.await("remora_requests_in_flight", 0)
	if fault := r.log.find("fault of the sidecar"); fault != "" {
		t.Error(fault)
	}
	if len(c.records()) == 0 {
		t.Error("none has a record")
	}
	for _, got := range c.records() {
		if got.Host != qwen || got.Status == 0 && got.Code == "" || strings.ToValidUTF8(got.Path+got.Method+got.AskedModel, "") != got.Path+got.Method+got.AskedModel {
			t.Errorf("got %+v", got)
		}
	}
}
