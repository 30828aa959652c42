package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/test/llmserver"
)

var qwenRef = routing.Ref{Kind: "LLMProvider", Namespace: "default", Name: "qwen"}

func TestARecordTellsWhatARequestWas(t *testing.T) {
	r, c := observed(t, providers+route("demo-llm-server", `
  - name: first
    matches: [{headers: {user-type: {exact: nobody}}}]
    backendRefs: [{providerHost: api.moonshot.cn}]
  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	r.provider.Script("", llmserver.Fault{Cached: 1, Reasoning: 3})
	body := strings.Replace(prompt, "{", `{"model":"mine",`, 1)
	begun := time.Now()
	reply := r.do("POST", "http://demo-llm-server/v1/chat/completions?secret=s", body)
	took := time.Since(begun)
	got := c.only(t)
	usage := r.billed(qwen)
	want := record.Record{
		Start: got.Start, Method: "POST", Host: "demo-llm-server", Path: "/v1/chat/completions",
		RuleOwner: routing.Ref{Kind: "LLMRoute", Namespace: "default", Name: "demo-llm-server"}, Rule: "#2",
		Provider: qwenRef, Endpoint: qwen + ":443", Server: "127.0.0.1:443", Key: "inline",
		Operation: "chat", Inference: true, AskedModel: "mine", RequestModel: "qwen-1.8b-chat", Configured: true, ResponseModel: "qwen-1.8b-chat",
		Status: 200, Total: got.Total, FirstToken: got.Total, Upstream: got.Upstream, Added: got.Added,
		RequestBytes: int64(len(body)), ResponseBytes: int64(len(reply.body)),
		Usage:    record.Usage{Input: int64(usage.Input), Output: int64(usage.Output), Cached: int64(usage.Cached), Reasoned: int64(usage.Reasoning), Reported: true},
		Attempts: got.Attempts,
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Total <= 0 || got.Total > took || got.Upstream <= 0 || got.Added <= 0 || got.Upstream+got.Added > got.Total {
		t.Errorf("of %s, the record has %s: upstream %s, added %s", took, got.Total, got.Upstream, got.Added)
	}
	if n := len(got.Attempts); n != 1 {
		t.Fatalf("%d attempts", n)
	}
	a := got.Attempts[0]
	wanted := record.Attempt{Start: a.Start, Provider: qwenRef, Server: "127.0.0.1:443", Key: "inline", Model: "qwen-1.8b-chat", Duration: a.Duration, FirstByte: a.FirstByte, Status: 200}
	if a != wanted || a.Start.Before(got.Start) || a.FirstByte <= 0 || a.FirstByte > a.Duration || a.Duration > got.Total {
		t.Errorf("attempt %+v of %+v", a, got)
	}
	r.do("POST", "http://demo-llm-server", prompt, "User-Type", "nobody")
	if got := c.only(t); got.Rule != "first" || got.Provider.Name != "moonshot" || got.AskedModel != "" || got.RequestModel != "moonshot-v1-8k" {
		t.Errorf("the next one: %+v", got)
	}
	r.do("POST", "http://demo-llm-server", prompt)
	if got := c.only(t); !got.Attempts[0].Reused || got.Rule != "#2" {
		t.Errorf("on a connection that is there: %+v", got)
	}
}

func TestARecordOfAStreamTellsWhenItBeganAndHowManyEventsItHad(t *testing.T) {
	r, c := observed(t, providers)
	r.provider.Script("", llmserver.Fault{FirstToken: 60 * time.Millisecond, ChunkDelay: 20 * time.Millisecond, Chunks: 6})
	reply := r.do("POST", "http://"+qwen, streamed)
	got := c.only(t)
	events := strings.Count(reply.body, "data: ") - strings.Count(reply.body, "data: [DONE]")
	if !got.Stream || got.Chunks != events || got.ResponseBytes != int64(len(reply.body)) || got.ResponseModel != "qwen-1.8b-chat" || got.Cut != "" || got.Code != "" {
		t.Errorf("%d events, %d bytes: %+v", events, len(reply.body), got)
	}
	if got.FirstToken < 60*time.Millisecond || got.Total < got.FirstToken+80*time.Millisecond || got.Upstream < 140*time.Millisecond || got.Added > got.Total-got.Upstream {
		t.Errorf("first token %s of %s, upstream %s, added %s", got.FirstToken, got.Total, got.Upstream, got.Added)
	}
	if u := r.billed(qwen); got.Usage.Input != int64(u.Input) || got.Usage.Output != int64(u.Output) || !got.Usage.Reported {
		t.Errorf("usage %+v, the provider says %+v", got.Usage, u)
	}
}

func TestARecordIsThereBeforeTheAppCanKnowThatItsAnswerIsComplete(t *testing.T) {
	r, c := observed(t, providers)
	for i := range 200 {
		if got := r.do("POST", "http://"+qwen, []string{prompt, streamed}[i%2]); got.status != 200 {
			t.Fatal(got.body)
		}
		if n := len(c.records()); n != i+1 {
			t.Fatalf("%d records after %d answers", n, i+1)
		}
	}
}

func TestEachRefusalAndFailureHasARecord(t *testing.T) {
	r, c := observed(t, providers+route("demo-llm-server", `
  - matches: [{headers: {a: {exact: b}}}]
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`)+route("missing", `
  - backendRefs: [{providerHost: missing.example.com}]`)+route("small", `
  - limits: {requestBody: 1Ki}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	f := func(name, text string, status int, code routing.Code, check func(record.Record) bool) {
		t.Run(name, func(t *testing.T) {
			reply, err := r.raw(text)
			if err != nil {
				t.Fatal(err)
			}
			got := c.only(t)
			if reply.status != status || got.Status != status || got.Code != code || got.Cut != record.Nobody || got.ResponseBytes != int64(len(reply.body)) || got.FirstToken != 0 {
				t.Errorf("answered %d %s, record %+v", reply.status, reply.body, got)
			}
			if check != nil && !check(got) {
				t.Errorf("record %+v", got)
			}
		})
	}
	of := func(method, host, path, more, body string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", method, path, host, more, body)
	}
	f("no rule", of("POST", "demo-llm-server", "/", lengthOf(prompt), prompt), 404, routing.NoRuleMatches, func(r record.Record) bool {
		return r.Host == "demo-llm-server" && r.Rule == "" && len(r.Attempts) == 0 && r.RequestBytes == int64(len(prompt))
	})
	f("broken JSON", of("POST", qwen, "/", lengthOf("{"), "{"), 400, routing.InvalidJSON, func(r record.Record) bool { return r.Operation == "chat" })
	f("missing provider", of("POST", "missing", "/", lengthOf(prompt), prompt), 503, routing.ProviderNotFound, nil)
	f("no inference", of("GET", qwen, "/admin", "", ""), 404, routing.OperationNotFound, func(r record.Record) bool { return r.Operation == "other" && r.Provider == qwenRef && !r.Inference })
	f("length and chunks", of("POST", qwen, "/", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 400, routing.InvalidRequest, func(r record.Record) bool { return r.Host == qwen })
	f("a tunnel to a port", "CONNECT "+qwen+":443 HTTP/1.1\r\nHost: "+qwen+":443\r\n\r\n", 405, routing.MethodNotAllowed, func(r record.Record) bool { return r.Host == qwen && r.Method == "CONNECT" })
	f("a body that is awaited", of("POST", "small", "/", "Expect: 100-continue\r\nContent-Length: 2000\r\n", ""), 413, routing.RequestTooLarge, func(r record.Record) bool { return r.Host == "small" && r.Operation == "chat" })
	f("half a body", of("POST", qwen, "/", "Transfer-Encoding: chunked\r\n", "zz\r\n"), 400, routing.InvalidRequest, func(r record.Record) bool { return r.Host == qwen })
	for code, fault := range map[routing.Code]llmserver.Fault{routing.UpstreamReset: {Reset: true}, routing.UpstreamInvalid: {Garbage: true}} {
		r.provider.Script("", fault)
		f(string(code), post("/", lengthOf(prompt), prompt), 502, code, func(r record.Record) bool {
			return len(r.Attempts) == 1 && r.Attempts[0].Code == code && r.Attempts[0].Duration > 0 && r.Retries == 0
		})
	}
	r.provider.Script("", llmserver.Fault{Status: 400})
	f("a provider's error", post("/", lengthOf(prompt), prompt), 400, routing.UpstreamRefusal, func(r record.Record) bool {
		return len(r.Attempts) == 1 && r.Attempts[0].Code == "" && r.Attempts[0].Status == 400
	})
}

func TestWhatIsNobodysHasNoRecord(t *testing.T) {
	r, c := observed(t, providers)
	r.do("GET", "http://foreign.example.com/", "")
	_, _ = r.raw("GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n")
	_, _ = r.raw("nonsense\r\n\r\n")
	w := r.dial()
	w.send("CONNECT " + qwen + ":80 HTTP/1.1\r\nHost: " + qwen + "\r\n\r\n")
	if line, err := w.in.ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
		t.Fatalf("%q %v", line, err)
	}
	if _, err := w.in.ReadString('\n'); err != nil { // and what is in the tunnel has one
		t.Fatal(err)
	}
	w.send(last)
	if got, err := w.receive("POST"); err != nil || got.status != 200 {
		t.Fatalf("%+v %v", got, err)
	}
	if got := c.only(t); got.Host != qwen || got.Status != 200 {
		t.Errorf("got %+v", got)
	}
}

func TestARecordHasEachAttempt(t *testing.T) {
	r, c := observed(t, providers+route("demo-llm-server", `
  - retries: {attempts: 3, retryOn: [reset, rate-limited, 5xx]}
    backendRefs:
    - {providerHost: dashscope.aliyuncs.com, priority: 0}
    - {providerHost: api.moonshot.cn, priority: 1}`))
	r.provider.Script(qwen, llmserver.Fault{Status: 503, Times: -1})
	r.provider.Script(moonshot, llmserver.Fault{Reset: true})
	if got := r.do("POST", "http://demo-llm-server", streamed); got.status != 200 {
		t.Fatal(got.body)
	}
	got := c.only(t)
	var story []string
	for _, a := range got.Attempts {
		story = append(story, fmt.Sprintf("%s %s %d %s", a.Provider.Name, a.Model, a.Status, a.Code))
		if a.Duration <= 0 || a.Start.Before(got.Start) || a.Server == "" {
			t.Errorf("attempt %+v", a)
		}
	}
	if s := strings.Join(story, "; "); s != "qwen qwen-1.8b-chat 503 UpstreamRefusal; moonshot moonshot-v1-8k 0 UpstreamReset; qwen qwen-1.8b-chat 503 UpstreamRefusal; moonshot moonshot-v1-8k 200 " &&
		s != "qwen qwen-1.8b-chat 503 UpstreamRefusal; moonshot moonshot-v1-8k 0 UpstreamReset; moonshot moonshot-v1-8k 200 " {
		t.Error(s)
	}
	if got.Retries != len(got.Attempts)-1 || got.Fallbacks == 0 || got.Code != "" || got.Provider.Name != "moonshot" || got.RequestModel != "moonshot-v1-8k" || got.Key != "inline" {
		t.Errorf("got %+v", got)
	}
}

func TestAnAttemptWithAnotherKeyIsOneOfItsOwn(t *testing.T) {
	refused := ""
	var mu sync.Mutex
	b := newTeller(t, func(key string, _ http.Header) int {
		mu.Lock()
		defer mu.Unlock()
		if refused == "" {
			refused = key
		}
		if key == refused {
			return 429
		}
		return 200
	})
	r, c := observed(t, b.configure("", "a=sk-a-0123456789", "b=sk-b-0123456789"))
	got := r.do("POST", "http://chat", prompt)
	rec := c.only(t)
	if got.status != 200 || len(rec.Attempts) != 2 || rec.Attempts[0].Code != routing.KeyRefused || rec.Attempts[0].Key == rec.Attempts[1].Key || rec.Key != rec.Attempts[1].Key || rec.Fallbacks != 0 {
		t.Errorf("%d %s: %+v", got.status, got.body, rec)
	}
}

func TestWhoCutAnAnswerIsInItsRecord(t *testing.T) {
	config := providers + route("demo-llm-server", `
  - timeouts: {request: 300ms, idle: 10s}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`) + route("idle", `
  - timeouts: {idle: 100ms}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`)
	for _, k := range []struct {
		host  string
		fault llmserver.Fault
		code  routing.Code
		by    record.Party
	}{
		{qwen, llmserver.Fault{CutAfter: new(2)}, routing.UpstreamReset, record.Provider},
		{"idle", llmserver.Fault{StallAfter: new(2)}, routing.IdleTimeout, record.Provider},
		{"demo-llm-server", llmserver.Fault{StallAfter: new(2)}, routing.DeadlineExceeded, record.Remora},
	} {
		t.Run(string(k.code), func(t *testing.T) {
			r, c := observed(t, config)
			r.provider.Script("", k.fault)
			reply := r.do("POST", "http://"+k.host, streamed)
			got := c.only(t)
			if got.Code != k.code || got.Cut != k.by || got.Status != 200 || got.Chunks != 2 || !got.Stream || got.ResponseBytes != int64(len(reply.body)) {
				t.Errorf("%d bytes: %+v", len(reply.body), got)
			}
			if u := got.Usage; !u.Estimated || u.Reported || u.EstimatedInput == 0 || u.EstimatedOutput == 0 {
				t.Errorf("usage %+v", u)
			}
		})
	}
}

func TestAnAppThatLeavesIsInItsRecord(t *testing.T) {
	for name, k := range map[string]struct {
		fault  llmserver.Fault
		status int
	}{"before the answer": {llmserver.Fault{Delay: time.Hour}, 0}, "in its middle": {llmserver.Fault{StallAfter: new(2)}, 200}} {
		t.Run(name, func(t *testing.T) {
			r, c := observed(t, providers)
			r.provider.Script("", k.fault)
			w := r.dial()
			w.send(post("/", lengthOf(streamed), streamed))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := r.provider.Await(ctx, 1); err != nil {
				t.Fatal(err)
			}
			if k.status != 0 {
				for range 2 {
					if _, err := w.in.ReadString('{'); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n := r.gauge("remora_requests_in_flight"); n != 1 {
				t.Errorf("%d requests in flight", n)
			}
			_ = w.Close()
			got := c.only(t)
			if got.Code != routing.ClientGone || got.Cut != record.App || got.Status != k.status || len(got.Attempts) != 1 {
				t.Errorf("got %+v", got)
			}
			if n := r.gauge("remora_requests_in_flight"); n != 0 {
				t.Errorf("%d requests in flight", n)
			}
		})
	}
}

func TestAnAnswerThatTheEndOfTheSidecarCutsIsNotTheAppsFault(t *testing.T) {
	r, c := observed(t, providers)
	r.provider.Script("", llmserver.Fault{StallAfter: new(2)})
	w := r.dial()
	w.send(post("/", lengthOf(streamed), streamed))
	if _, err := w.in.ReadString('{'); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = r.proxy.Shutdown(ctx)
	if got := c.only(t); got.Code != routing.ShuttingDown || got.Cut != record.Remora {
		t.Errorf("got %+v", got)
	}
}

func TestAWebSocketHasItsRecordWhenItEnds(t *testing.T) {
	r, c := observed(t, providers)
	ws, err := realtime(t, r.dial().Conn, qwen, "?model=gpt-realtime")
	if err != nil {
		t.Fatal(err)
	}
	hears(t, ws, "session.created")
	says(t, ws, `{"type":"a"}`)
	hears(t, ws, `{"type":"a"}`)
	if n := len(c.records()); n != 0 {
		t.Errorf("%d records while it goes on", n)
	}
	_ = ws.Close()
	got := c.only(t)
	if got.Status != 101 || got.Operation != "realtime" || got.AskedModel != "gpt-realtime" || got.Cut != "" || got.Code != "" || got.RequestBytes == 0 || got.ResponseBytes == 0 || len(got.Attempts) != 1 {
		t.Errorf("got %+v", got)
	}
	w := r.dial()
	if ws, err = realtime(t, w.Conn, qwen, "?model=m"); err != nil {
		t.Fatal(err)
	}
	hears(t, ws, "session.created")
	_ = w.Conn.(*net.TCPConn).SetLinger(0)
	_ = w.Close()
	if got := c.only(t); got.Status != 101 || got.Cut != record.App || got.Code != routing.ClientGone {
		t.Errorf("of an app that broke off: %+v", got)
	}
}

func TestAnUploadIsCountedAsTheAppSentIt(t *testing.T) {
	r, c := observed(t, providers)
	for name, framing := range map[string]int{"announced": 1, "in chunks": -1} {
		t.Run(name, func(t *testing.T) {
			body := strings.Repeat("x", 300<<10)
			q, _ := http.NewRequest("POST", "http://"+vllm+"/upload", io.NopCloser(strings.NewReader(body)))
			if q.ContentLength = -1; framing > 0 {
				q.ContentLength = int64(len(body))
			}
			resp, err := r.client.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if got := c.only(t); got.RequestBytes != int64(len(body)) || got.Operation != "other" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestWhoeverIsToldOfARequestCannotEndIt(t *testing.T) {
	var told atomic.Int64
	r := newRig(t, providers, func(o *proxy.Options) {
		o.Done = func(*record.Record, *telemetry.Settings) {
			told.Add(1)
			panic("a fault of who is told")
		}
	})
	for _, body := range []string{prompt, streamed, "{"} {
		r.do("POST", "http://"+qwen, body)
	}
	if told.Load() != 3 || r.gauge("remora_requests_in_flight") != 0 {
		t.Errorf("told %d times, %d in flight", told.Load(), r.gauge("remora_requests_in_flight"))
	}
}

func TestRequestsOfAllKindsHaveOneRecordEach(t *testing.T) {
	r, c := observed(t, providers+route("demo-llm-server", `
  - retries: {attempts: 2, retryOn: [reset, 5xx]}
    backendRefs:
    - {providerHost: dashscope.aliyuncs.com, priority: 0}
    - {providerHost: api.moonshot.cn, priority: 1}`))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 20}, llmserver.Fault{Reset: true, Times: 20}, llmserver.Fault{CutAfter: new(2), Times: 20}, llmserver.Fault{Times: 20})
	const apps, each = 16, 25
	var all sync.WaitGroup
	for app := range apps {
		all.Go(func() {
			for i := range each {
				body := []string{prompt, streamed, "{", streamed}[i%4]
				ctx, cancel := context.WithCancel(t.Context())
				resp, err := r.open(ctx, "POST", "http://demo-llm-server", body, "X-App", fmt.Sprint(app, i))
				if err == nil {
					if i%4 == 3 {
						_, _ = resp.Body.Read(make([]byte, 10))
						cancel() // in the middle
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				cancel()
			}
		})
	}
	all.Wait()
	for _, got := range c.await(t, apps*each) {
		if got.Total <= 0 || got.Host != "demo-llm-server" || got.Upstream < 0 || got.Added < 0 || got.Upstream+got.Added > got.Total || got.Retries != max(len(got.Attempts)-1, 0) {
			t.Errorf("got %+v", got)
		}
	}
	r.await("remora_requests_in_flight", 0)
}
