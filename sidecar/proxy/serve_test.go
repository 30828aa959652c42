package proxy_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

func TestAPlainCallGetsPathModelKeyAndTLS(t *testing.T) {
	r := newRig(t, providers)
	got := r.do("POST", "http://"+qwen, prompt, "Authorization", "Bearer mine", "Api-Key", "mine", "Cookie", "a=b", "X-Other", "kept")
	if got.status != 200 || !strings.Contains(got.body, "I am qwen-1.8b-chat at "+qwen) {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	q := r.last()
	if !q.TLS || q.SNI != qwen || q.Host != qwen || q.Path != "/compatible-mode/v1/chat/completions" {
		t.Errorf("the provider got %+v", q)
	}
	if want := `{"model":"qwen-1.8b-chat","messages":[{"role":"user","content":"hello there"}]}`; string(q.Body) != want {
		t.Errorf("body %s, want %s", q.Body, want)
	}
	if v := q.Header.Values("Authorization"); len(v) != 1 || v[0] != "Bearer sk-qwen-0123456789" {
		t.Errorf("Authorization %q", v)
	}
	for _, name := range []string{"Api-Key", "Cookie"} {
		if q.Header.Get(name) != "" {
			t.Errorf("the app's own %s went out", name)
		}
	}
	if q.Header.Get("X-Other") != "kept" || q.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("headers %v", q.Header)
	}
	if v := got.header.Values("Server"); len(v) != 1 || v[0] != "llmserver" {
		t.Errorf("the provider's Server header arrives as %q", v)
	}
}

func TestTheProviderOfARuleGetsItsOwnConfig(t *testing.T) {
	r := newRig(t, providers+route(qwen, `
  - name: vip-route
    matches: [{headers: {user-type: {exact: subscriber}}}]
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]
  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	if got := r.do("POST", "http://"+qwen, prompt, "user-type", "subscriber"); !strings.Contains(got.body, "I am qwen-turbo") {
		t.Errorf("subscriber: %s", got.body)
	}
	if v := r.last().Header.Get("Authorization"); v != "Bearer sk-vip-0123456789" {
		t.Errorf("subscriber's key: %s", v)
	}
	if got := r.do("POST", "http://"+qwen, prompt, "user-type", "guest"); !strings.Contains(got.body, "I am qwen-1.8b-chat") {
		t.Errorf("guest: %s", got.body)
	}
}

func TestAStreamArrivesEventByEvent(t *testing.T) {
	r := newRig(t, providers)
	// The provider falls silent after two events: those two must be here nevertheless.
	r.provider.Script("", llmserver.Fault{StallAfter: new(2)})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resp, err := r.open(ctx, "POST", "http://"+qwen+"/v1/chat/completions", `{"stream":true,"messages":[{"role":"user","content":"hi"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for events := 0; events < 2; {
		if !in.Scan() {
			t.Fatalf("the stream ended: %v", in.Err())
		}
		if strings.HasPrefix(in.Text(), "data: ") {
			events++
		}
	}
	cancel()
	if _, err := r.provider.AwaitAborted(t.Context()); err != nil {
		t.Errorf("the provider was not told that the app left: %v", err)
	}
}

func TestALeavingAppEndsTheRequestBeforeTheFirstByte(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script("", llmserver.Fault{Delay: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if _, err := r.provider.Await(t.Context(), 1); err == nil {
			cancel()
		}
	}()
	if _, err := r.open(ctx, "POST", "http://"+qwen, prompt); err == nil {
		t.Fatal("the call succeeded")
	}
	await, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if _, err := r.provider.AwaitAborted(await); err != nil {
		t.Errorf("the provider was not told that the app left: %v", err)
	}
}

func TestACutStreamEndsInAnErrorEvent(t *testing.T) {
	for name, fault := range map[string]llmserver.Fault{
		"between events": {CutAfter: new(3)},
		"mid-event":      {CutAfter: new(3), MidEvent: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers)
			r.provider.Script("", fault)
			got := r.do("POST", "http://"+qwen, `{"stream":true,"messages":[{"role":"user","content":"one two three four five six"}]}`)
			events := strings.Split(strings.TrimSuffix(got.body, "\n\n"), "\n\n")
			for _, e := range events {
				if !strings.HasPrefix(e, "data: {") || !strings.HasSuffix(e, "}") {
					t.Errorf("a torn event: %q", e)
				}
			}
			if last := events[len(events)-1]; !strings.Contains(last, `"code":"UpstreamReset"`) {
				t.Errorf("the last event is %s", last)
			}
		})
	}
}

func TestAStreamThatIsCutAfterItsLastEventIsComplete(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script("", llmserver.Fault{CutAfter: new(1000)}) // all but the ending chunk
	got := r.do("POST", "http://"+qwen, `{"stream":true,"messages":[{"role":"user","content":"one two"}]}`)
	if !strings.HasSuffix(got.body, "data: [DONE]\n\n") {
		t.Errorf("it ends in %q", got.body[max(0, len(got.body)-200):])
	}
}

func TestACutJSONAnswerIsNotTakenForComplete(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script("", llmserver.Fault{CutAfter: new(2)})
	if got, err := r.try("POST", "http://"+qwen, prompt); err == nil && got.status == 200 {
		t.Errorf("got %d %s without an error", got.status, got.body)
	}
}

func TestOnlyInferenceReachesAProviderWithAKey(t *testing.T) {
	r := newRig(t, providers)
	for _, c := range []struct {
		method, path string
		status       int
		code         routing.Code
	}{
		{"DELETE", "/v1/models/gpt-4", 405, routing.MethodNotAllowed},
		{"GET", "/", 405, routing.MethodNotAllowed},
		{"GET", "/v1/files", 404, routing.OperationNotFound},
		{"POST", "/v1/fine_tuning/jobs", 404, routing.OperationNotFound},
		{"POST", "/v1/../admin", 404, routing.OperationNotFound},
		{"GET", "/v1/models/%2e%2e%2fadmin", 404, routing.OperationNotFound},
		{"POST", "/v1/chat/completions/", 404, routing.OperationNotFound},
		{"POST", "//v1/chat/completions", 404, routing.OperationNotFound},
	} {
		r.do(c.method, "http://"+qwen+c.path, "").wantError(t, c.status, c.code)
	}
	if n := len(r.provider.Requests()); n != 0 {
		t.Errorf("%d of them reached the provider", n)
	}
	if got := r.do("POST", "http://"+qwen+"/v1/embeddings", `{"model":"text-embedding-v3","input":"x"}`); got.status != 200 || r.last().Path != "/compatible-mode/v1/embeddings" {
		t.Errorf("embeddings: %d %s at %s", got.status, got.body, r.last().Path)
	}
	if got := r.do("GET", "http://"+qwen+"/v1/models", ""); got.status != 200 {
		t.Errorf("models: %d %s", got.status, got.body)
	}
}

func TestAProviderWithoutAKeyGetsEverything(t *testing.T) {
	r := newRig(t, providers)
	got := r.do("DELETE", "http://"+vllm+"/v1/models/x?really=yes", "", "Authorization", "Bearer mine")
	q := r.last()
	if got.status != 404 || q.TLS || q.Method != "DELETE" || q.Path != "/v1/models/x" || q.RawQuery != "really=yes" || q.Header.Get("Authorization") != "Bearer mine" {
		t.Errorf("got %d; the server got %+v", got.status, q)
	}
}

func TestBrokenBodiesAreRefusedWithTheOffset(t *testing.T) {
	r := newRig(t, providers)
	for _, c := range []struct {
		body     string
		code     routing.Code
		mentions string
	}{
		{`{"messages":[}`, routing.InvalidJSON, "offset 13"},
		{`{"messages":[]`, routing.InvalidJSON, "offset 14"},
		{`[1]`, routing.InvalidJSON, "begins with {"},
		{``, routing.InvalidJSON, "offset 0"},
		{`{"model":"a","model":"b"}`, routing.DuplicateKey, "offset 13"},
		{`{"model":"a","mod\u0065l":"b"}`, routing.DuplicateKey, "offset 13"},
		{`{"Model":"a"}`, routing.DuplicateKey, `write "model"`},
		{`{"stream_options":{"include_usage":true,"include_usage":false}}`, routing.DuplicateKey, "stream_options.include_usage"},
		{`{"a":1} {"b":2}`, routing.InvalidJSON, "follows"},
	} {
		r.do("POST", "http://"+qwen, c.body).wantError(t, 400, c.code, c.mentions)
	}
}

func TestAnOwnedHostIsNeverPassedOn(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - backendRefs: [{providerHost: missing.example.com}]`))
	r.do("POST", "http://demo-llm-server", prompt).wantError(t, 503, routing.ProviderNotFound, "missing.example.com")
	r.do("POST", "http://missing.example.com", prompt).wantError(t, 503, routing.ProviderNotFound)
	r.do("POST", "http://demo-llm-server.default.svc.cluster.local:8080/v1/chat/completions", prompt).wantError(t, 503, routing.ProviderNotFound)
}

func TestAForeignHostIsPassedOnAsItIs(t *testing.T) {
	r := newRig(t, providers)
	r.do("PUT", "http://foreign.example.com/some/path?q=1", "body", "Authorization", "Bearer mine", "Accept-Encoding", "gzip")
	q := r.last()
	if q.TLS || q.Method != "PUT" || q.Path != "/some/path" || q.RawQuery != "q=1" || string(q.Body) != "body" ||
		q.Header.Get("Authorization") != "Bearer mine" || q.Header.Get("Accept-Encoding") != "gzip" {
		t.Errorf("the server got %+v", q)
	}
}

func TestNothingIsPassedOnBeforeTheFirstConfiguration(t *testing.T) {
	r := newRig(t, providers)
	table, _ := routing.Compile(routing.Objects{Incomplete: true}, nil)
	s := *r.store.Load()
	s.Table = table
	r.store.Publish(&s)
	r.do("POST", "http://"+qwen, prompt).wantError(t, 503, routing.ConfigurationUnread)
}

func TestAFailingBackendIsFollowedByTheNext(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - backendRefs:
    - {providerHost: dashscope.aliyuncs.com, priority: 0}
    - {providerHost: api.moonshot.cn, priority: 1}`))
	r.provider.Script(qwen, llmserver.Fault{Status: 429, Times: -1})
	got := r.do("POST", "http://demo-llm-server", prompt)
	if got.status != 200 || !strings.Contains(got.body, "moonshot-v1-8k") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if v := r.last().Header.Get("Authorization"); v != "Bearer sk-moon-0123456789" {
		t.Errorf("moonshot got %s", v)
	}
}

func TestAProviderThatIsNotWhoItShouldBeGetsNothing(t *testing.T) {
	other, err := llmserver.Start(llmserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const config = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen}
spec:
  host: dashscope.aliyuncs.com
  tls: {%s}
  configs: {defaultConfig: {openAIConfig: {apiKey: sk-qwen-0123456789}}}`
	r := newRig(t, fmt.Sprintf(config, "caBundle: "+base64.StdEncoding.EncodeToString(other.CAPEM())))
	r.do("POST", "http://"+qwen, prompt).wantError(t, 502, routing.UntrustedCertificate, "--trusted-ca")
	r.apply(fmt.Sprintf(config, "sni: elsewhere.example.com"))
	r.do("POST", "http://"+qwen, prompt).wantError(t, 502, routing.ConnectFailure)
	if n := len(r.provider.Requests()); n != 0 {
		t.Errorf("%d requests reached the provider", n)
	}
}

func TestUnreachableStalledAndBrokenProviders(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - timeouts: {firstToken: 100ms, idle: 100ms}
    retries: {attempts: 0}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	for _, c := range []struct {
		fault  string
		status int
		code   routing.Code
	}{
		{"reset", 502, routing.UpstreamReset},
		{"close", 502, routing.UpstreamReset},
		{"garbage", 502, routing.UpstreamInvalid},
		{"delay=10s", 504, routing.FirstTokenTimeout},
	} {
		f, err := llmserver.ParseFault(c.fault)
		if err != nil {
			t.Fatal(err)
		}
		r.provider.Script("", f)
		r.do("POST", "http://demo-llm-server", prompt).wantError(t, c.status, c.code)
	}
	r.provider.Script("", llmserver.Fault{StallAfter: new(2)})
	got := r.do("POST", "http://demo-llm-server", `{"stream":true,"messages":[{"role":"user","content":"one two three four"}]}`)
	if !strings.Contains(got.body, `"code":"IdleTimeout"`) {
		t.Errorf("a stalled stream ended in %s", got.body)
	}
}

func TestAClosedKeepAliveConnectionIsNotNoticed(t *testing.T) {
	r := newRig(t, providers)
	f, _ := llmserver.ParseFault("early-close")
	f.Times = -1
	r.provider.Script("", f)
	for range 50 {
		if got := r.do("POST", "http://"+qwen, prompt); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
}

func TestAnUploadMeetsNoClosedConnection(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script("", llmserver.Fault{EarlyClose: true, Times: -1})
	const form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b\r\n" +
		"Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n12345\r\n--b--\r\n"
	for range 200 {
		if got := r.do("POST", "http://"+qwen, prompt); got.status != 200 { // its connection is kept, and closed
			t.Fatalf("got %d %s", got.status, got.body)
		}
		got := r.do("POST", "http://"+qwen+"/v1/audio/transcriptions", form, "Content-Type", "multipart/form-data; boundary=b")
		if got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
}

func TestGarbageGetsACleanClose(t *testing.T) {
	r := newRig(t, providers)
	for _, text := range []string{
		"\x16\x03\x01\x02\x00\x01\x00", "GET\r\n\r\n", "POST / HTTP/1.1\r\nHost: " + qwen + "\r\nHost: b\r\n\r\n",
		"POST / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nHost: " + qwen + "\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\nhello",
		"GET http://user@" + qwen + "/ HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		got, err := r.raw(text + strings.Repeat("\r\n", 2))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got.wantError(t, 400, routing.InvalidRequest)
	}
	if n := len(r.provider.Requests()); n != 0 {
		t.Errorf("%d of them reached the provider", n)
	}
}

func TestALargeBodyIsRefused(t *testing.T) {
	r := newRig(t, providers)
	resp, err := r.client.Post("http://"+qwen, "application/json", io.LimitReader(spaces{}, 65<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	reply{resp.StatusCode, resp.Header, string(b)}.wantError(t, 413, routing.RequestTooLarge)
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
