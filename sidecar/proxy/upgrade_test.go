package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// realtime opens a WebSocket on a connection to the proxy.
func realtime(t *testing.T, conn net.Conn, host, query string, protocols ...string) (*websocket.Conn, error) {
	t.Helper()
	config, err := websocket.NewConfig("ws://"+host+"/v1/realtime"+query, "http://app.example.com")
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = protocols
	config.Header = http.Header{"Authorization": {"Bearer mine"}, "X-Other": {"kept"}}
	ws, err := websocket.NewClient(config, conn)
	if err == nil {
		t.Cleanup(func() { _ = ws.Close() })
	}
	return ws, err
}

// hears is one event of a WebSocket.
func hears(t *testing.T, ws *websocket.Conn, want string) {
	t.Helper()
	var got string
	if err := websocket.Message.Receive(ws, &got); err != nil || !strings.Contains(got, want) {
		t.Fatalf("got %q %v, want %q", got, err, want)
	}
}

func says(t *testing.T, ws *websocket.Conn, event string) {
	t.Helper()
	if err := websocket.Message.Send(ws, event); err != nil {
		t.Fatal(err)
	}
}

func TestAWebSocketGetsTheProvidersKey(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	for name, conn := range map[string]net.Conn{"explicit": r.dial().Conn, "redirected": app(t, r.world)} {
		t.Run(name, func(t *testing.T) {
			ws, err := realtime(t, conn, qwen, "?model=gpt-realtime", "realtime", "openai-insecure-api-key.mine", "OpenAI-Insecure-API-Key.mine2", "openai-beta.realtime-v1")
			if err != nil {
				t.Fatal(err)
			}
			if p := ws.Config().Protocol; len(p) != 1 || p[0] != "realtime" {
				t.Errorf("protocols %q", p)
			}
			hears(t, ws, `"model":"gpt-realtime"`)
			for _, event := range []string{`{"type":"a"}`, `{"type":"` + strings.Repeat("b", 200<<10) + `"}`} {
				says(t, ws, event)
				hears(t, ws, event)
			}
			q := r.last()
			if !q.TLS || q.Path != "/compatible-mode/v1/realtime" || q.RawQuery != "model=gpt-realtime" || q.Header.Get("X-Other") != "kept" {
				t.Errorf("the provider got %+v", q)
			}
			if v := q.Header.Values("Authorization"); len(v) != 1 || v[0] != "Bearer sk-qwen-0123456789" {
				t.Errorf("Authorization %q", v)
			}
			if v := q.Header.Get("Sec-Websocket-Protocol"); v != "realtime, openai-beta.realtime-v1" || strings.Contains(fmt.Sprint(q.RawHeader), "mine") {
				t.Errorf("protocols %q of %q", v, q.RawHeader)
			}
		})
	}
}

func TestTheModelOfAWebSocketIsThatOfItsQuery(t *testing.T) {
	r := newRig(t, providers+route("voice", `
  - matches: [{model: {prefix: gpt-}}]
    backendRefs: [{providerHost: api.moonshot.cn}]
  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	for query, host := range map[string]string{"?a=b&model=gpt%2Drealtime": moonshot, "?model=qwen-omni": qwen} {
		ws, err := realtime(t, r.dial().Conn, "voice", query)
		if err != nil {
			t.Fatal(err)
		}
		hears(t, ws, "session.created")
		if q := r.last(); q.Host != host || "?"+q.RawQuery != query {
			t.Errorf("%s went to %s with %s", query, q.Host, q.RawQuery)
		}
	}
	w := r.dial()
	w.send(handshake("voice", "/v1/realtime?model=a&model=b", ""))
	got, err := w.receive("GET")
	if err != nil {
		t.Fatal(err)
	}
	got.wantError(t, 400, routing.DuplicateKey)
}

func handshake(host, target, header string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + header + "\r\n"
}

const proof = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // of that key, as RFC 6455 has it

func TestARefusedWebSocketIsAnAnswer(t *testing.T) {
	r := newRig(t, providers)
	w := r.dial()
	r.provider.Script("", llmserver.Fault{Status: 401}, llmserver.Fault{Status: 429}, llmserver.Fault{Status: 500})
	for _, status := range []int{401, 429, 500} {
		w.send(handshake(qwen, "/v1/realtime?model=m", ""))
		if got, err := w.receive("GET"); err != nil || got.status != status {
			t.Errorf("%d: %v %+v", status, err, got)
		}
	}
	w.send(handshake(qwen, "/v1/realtime?model=m", ""))
	if line, err := w.in.ReadString('\n'); err != nil || line != "HTTP/1.1 101 Switching Protocols\r\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestWhatIsNoWebSocketDoesNotBecomeOne(t *testing.T) {
	r := newRig(t, providers)
	for _, c := range []struct {
		text     string
		status   int
		code     routing.Code
		mentions string
	}{
		{"GET /v1/realtime?model=m HTTP/1.1\r\nHost: " + qwen + "\r\n\r\n", 426, routing.UpgradeRequired, "ws://"},
		{"POST /v1/realtime HTTP/1.1\r\nHost: " + qwen + "\r\nContent-Length: 2\r\n\r\n{}", 405, routing.MethodNotAllowed, "use GET"},
		{strings.Replace(handshake(qwen, "/v1/realtime?model=m", ""), "HTTP/1.1", "HTTP/1.0", 1), 426, routing.UpgradeRequired, ""},
		{strings.Replace(handshake(qwen, "/v1/realtime?model=m", ""), "Upgrade: websocket", "Upgrade: h2c", 1), 426, routing.UpgradeRequired, ""},
		{strings.Replace(handshake(qwen, "/v1/realtime?model=m", ""), "keep-alive, Upgrade", "keep-alive", 1), 426, routing.UpgradeRequired, ""},
		{handshake(qwen, "/v1/models", ""), 400, routing.InvalidRequest, "is no WebSocket"},
		{handshake(qwen, "/v1/else", ""), 404, routing.OperationNotFound, ""},
		{handshake(qwen, "/v1/realtime?model=m", "Content-Length: 2\r\n") + "{}", 400, routing.InvalidRequest, "has a body"},
	} {
		w := r.dial()
		w.send(c.text)
		got, err := w.receive("GET")
		if err != nil {
			t.Fatalf("%q: %v", c.text, err)
		}
		got.wantError(t, c.status, c.code, c.mentions)
		if c.status == 426 && got.header.Get("Upgrade") != "websocket" {
			t.Errorf("%q: %v", c.text, got.header)
		}
	}
	if n := r.provider.Received(); n != 0 {
		t.Errorf("%d of them reached the provider", n)
	}
	w := r.dial()
	w.send("POST / HTTP/1.1\r\nHost: " + qwen + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + lengthOf(prompt) + "\r\n" + prompt)
	if got, err := w.receive("POST"); err != nil || got.status != 200 {
		t.Errorf("a client that would like HTTP/2: %v %+v", err, got)
	}
}

func TestAWebSocketThatIsNobodysBusinessIsPassedOn(t *testing.T) {
	r := newRig(t, providers+at("127.0.0.5", 8080, "mode: DISABLE"))
	h := serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: "+proof+"\r\nX-More: 1\r\n\r\nhello")
		_, _ = io.Copy(c, c)
		return false
	})
	for _, target := range []string{"/chat/live", "http://127.0.0.5:8080/chat/live", "/v1/realtime"} {
		w := r.dial()
		w.send(handshake("127.0.0.5:8080", target, "Sec-WebSocket-Protocol: openai-insecure-api-key.mine\r\n") + "early")
		resp, err := http.ReadResponse(w.in, &http.Request{Method: "GET"})
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != proof || resp.Header.Get("X-More") != "1" || resp.Header.Get("Content-Length") != "" {
			t.Fatalf("%s: %v %+v", target, err, resp)
		}
		hear(t, w.in, "helloearly")
		w.send("more")
		hear(t, w.in, "more")
		_ = w.Conn.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(w.in); err != nil || len(rest) > 0 {
			t.Errorf("%s: %q %v", target, rest, err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.got {
		if v := q.Header.Get("Sec-Websocket-Protocol"); v != "openai-insecure-api-key.mine" {
			t.Errorf("without a key, the app's own is %q", v)
		}
	}
}

func TestAProviderThatSwitchesToSomethingElseIsRefused(t *testing.T) {
	r := newRig(t, rawConfig(""))
	answers := []string{
		"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAA\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: " + proof + "\r\n", "",
	}
	serve(t, func(n int, c *net.TCPConn, _ *http.Request) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"+answers[n]+"\r\n")
		return true
	})
	for range answers {
		w := r.dial()
		w.send(handshake("127.0.0.5:8080", "/v1/realtime?model=m", ""))
		got, err := w.receive("GET")
		if err != nil {
			t.Fatal(err)
		}
		got.wantError(t, 502, routing.UpstreamInvalid)
	}
}

func TestAWebSocketEndsWithEitherSide(t *testing.T) {
	r := newRig(t, providers+route("quick", `
  - timeouts: {idle: 300ms}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	begin := func(host string) *websocket.Conn {
		ws, err := realtime(t, r.dial().Conn, host, "?model=m")
		if err != nil {
			t.Fatal(err)
		}
		hears(t, ws, "session.created")
		return ws
	}
	ended := func(what string, ws *websocket.Conn) {
		t.Helper()
		var got string
		if err := websocket.Message.Receive(ws, &got); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %q %v", what, got, err)
		}
	}
	ws := begin(qwen)
	_ = ws.Close()
	if _, err := r.provider.AwaitEnded(t.Context(), 1); err != nil {
		t.Error(err)
	}
	r.provider.Script("", llmserver.Fault{CutAfter: new(1)})
	ws = begin(qwen)
	says(t, ws, `{"type":"a"}`)
	hears(t, ws, "a")
	ended("the provider left", ws)
	ended("nobody spoke", begin("quick"))
	if r.log.find("IdleTimeout") == "" {
		t.Error("the log does not say that nobody spoke")
	}
}

func TestAnAppThatVanishesEndsItsWebSocket(t *testing.T) {
	r := newRig(t, providers)
	w := r.dial()
	w.send(handshake(qwen, "/v1/realtime?model=m", ""))
	if _, err := w.in.ReadString('{'); err != nil {
		t.Fatal(err)
	}
	_ = w.Conn.(*net.TCPConn).SetLinger(0)
	_ = w.Close()
	await, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if _, err := r.provider.AwaitAborted(await); err != nil {
		t.Error(err)
	}
}

func TestAWebSocketTriesTheNextBackend(t *testing.T) {
	r := newRig(t, providers+at("127.0.0.6", 9, "mode: DISABLE")+route("voice", `
  - backendRefs: [{providerHost: 127.0.0.6, priority: 0}, {providerHost: dashscope.aliyuncs.com, priority: 1}]`))
	ws, err := realtime(t, r.dial().Conn, "voice", "?model=m")
	if err != nil {
		t.Fatal(err)
	}
	hears(t, ws, "session.created")
}

func TestShutdownCutsWebSocketsAtItsEnd(t *testing.T) {
	r := newRig(t, providers)
	w := r.dial()
	w.send(handshake(qwen, "/v1/realtime?model=m", ""))
	in := bufio.NewReader(w.in)
	if _, err := in.ReadString('{'); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := r.proxy.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it was not waited for: %v", err)
	}
	if _, err := io.ReadAll(in); errors.Is(err, context.DeadlineExceeded) {
		t.Error("it was not cut")
	}
	if r.log.find(`"connections"=1`) == "" {
		t.Error("the log does not say that one was cut")
	}
}
