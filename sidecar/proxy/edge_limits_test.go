package proxy_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

func TestSlowAndIdleClientsCrowdOutNobody(t *testing.T) {
	g := newGateway(t, "", func(o *proxy.Options) { o.Memory = 32 << 20 }) // room for 341 connections
	ca := newAuthority(t, "ca")
	g.secrets = []routing.Secret{ca.secret(t, "cert", "api.example.com")}
	g.apply(gatewayOf(plainServer+"\n"+secured("https", "SIMPLE", "cert", "api.example.com")) + virtual("api.example.com", toAPI))
	kept := &http.Transport{DialContext: g.dialContext}
	defer kept.CloseIdleConnections()
	ask := func() {
		t.Helper()
		if got, err := g.try(kept, "GET", "http://api.example.com/", ""); err != nil || got.status != 200 {
			t.Fatalf("a client that was there before: %v %d", err, got.status)
		}
	}
	ask()
	for i, word := range []string{"", "GET / HTTP/1.1\r\nHost: api.example.com\r\nX-", "\x16\x03\x01\x02\x00\x01"} {
		port := "80"
		if i == 2 {
			port = "443"
		}
		for range 500 {
			c, err := net.Dial("tcp", net.JoinHostPort(publicIP, port))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, word)
		}
		ask()
		if got := g.call("GET", "http://api.example.com/", ""); got.status != 200 {
			t.Errorf("a new client beside %q: %d", word, got.status)
		}
		if got := g.call("GET", "https://api.example.com/", ""); got.status != 200 {
			t.Errorf("a new client of TLS beside %q: %d", word, got.status)
		}
	}
	if n := number(t, g.metricsText(), "remora_gateway_connections"); n > 341 {
		t.Errorf("%d connections are open", n)
	}
}

func number(t *testing.T, text, name string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(grepLines(text, name+" "), name+" %d", &n); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func TestAWebSocketPassesAGatewayWithAndWithoutTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	g := newGateway(t, "")
	g.secrets = []routing.Secret{ca.secret(t, "cert", "api.example.com")}
	g.apply(gatewayOf(plainServer+"\n"+secured("https", "SIMPLE", "cert", "api.example.com")) + virtual("api.example.com", toAPI))
	echo := websocket.Server{Handler: func(ws *websocket.Conn) {
		for event := ""; websocket.Message.Receive(ws, &event) == nil; {
			_ = websocket.Message.Send(ws, event)
		}
	}}
	g.api.answer(echo.ServeHTTP)
	for _, scheme := range []string{"ws", "wss"} {
		var conn net.Conn
		var err error
		if scheme == "wss" {
			conn, err = tls.Dial("tcp", publicIP+":443", &tls.Config{RootCAs: ca.pool(), ServerName: "api.example.com"})
		} else {
			conn, err = net.Dial("tcp", publicIP+":80")
		}
		if err != nil {
			t.Fatal(err)
		}
		config, _ := websocket.NewConfig(scheme+"://api.example.com/v1/realtime?model=m", "http://app.example.com")
		ws, err := websocket.NewClient(config, conn)
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		for _, event := range []string{"a", strings.Repeat("b", 200<<10), "c"} {
			says(t, ws, event)
			hears(t, ws, event)
		}
		_ = ws.Close()
	}
}

// egress is a provider with a key behind a host of the gateway.
const egress = `
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen, namespace: remora-gateway}
spec:
  host: dashscope.aliyuncs.com
  %s
  configs: {defaultConfig: {openAIConfig: {model: qwen-turbo, apiKey: sk-egress-0123456789}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: qwen, namespace: remora-gateway}
spec:
  host: dashscope.aliyuncs.com
  gateways: [default/edge]
  rules: [{backendRefs: [{providerHost: dashscope.aliyuncs.com}]}]
`

func TestAKeyThatOnlyTheGatewayHasGoesWithInferenceAndNothingElse(t *testing.T) {
	r := newRig(t, "") // which brings the provider, on the ports of 127.0.0.1
	pool := r.provider.CAPEM()
	g := newGateway(t, gatewayOf(plainServer)+fmt.Sprintf(egress, "tls: {caBundle: "+base64.StdEncoding.EncodeToString(pool)+"}"))
	got := g.call("POST", "http://"+qwen+"/v1/chat/completions", prompt, "Authorization", "Bearer mine", "X-Forwarded-For", "192.0.2.9")
	if got.status != 200 || !strings.Contains(got.body, "I am qwen-turbo") {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	q := r.last()
	if v := q.Header.Values("Authorization"); len(v) != 1 || v[0] != "Bearer sk-egress-0123456789" {
		t.Errorf("Authorization %q", v)
	}
	if q.Header.Get("X-Forwarded-For")+q.Header.Get("X-Forwarded-Host") != "" {
		t.Errorf("the provider is told who called: %v", q.Header)
	}
	n := len(r.provider.Requests())
	for _, path := range []string{"/v1/files", "/v1/models/../files", "/v1/chat/completions/../../files"} {
		if got := g.raw("POST " + path + " HTTP/1.1\r\nHost: " + qwen + "\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"); got.status != 404 && got.status != 400 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if len(r.provider.Requests()) != n {
		t.Error("something else than inference went out with the key")
	}
}

func TestAProviderForSomeUsersIsForNoneOfAGateway(t *testing.T) {
	r := newRig(t, "")
	g := newGateway(t, gatewayOf(plainServer)+fmt.Sprintf(egress, "allowedUIDs: [0]"))
	got := g.call("POST", "http://"+qwen+"/v1/chat/completions", prompt)
	if got.status != 403 || !strings.Contains(got.body, string(routing.CallerNotAllowed)) || !strings.Contains(got.body, "a gateway cannot tell") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if len(r.provider.Requests()) > 0 {
		t.Error("the provider was called")
	}
}

func TestAGatewayThatLeavesServesOnAndEndsItsConnections(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", toAPI))
	g.proxy.Leave()
	for range 3 {
		c, err := net.Dial("tcp", publicIP+":80")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
		if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200") || !strings.Contains(string(got), "Connection: close\r\n") {
			t.Errorf("got %q %v", got, err)
		}
		_ = c.Close()
	}
	more := make(chan struct{})
	g.api.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		<-more
		_, _ = io.WriteString(w, "end")
	})
	resp, err := (&http.Transport{DialContext: g.dialContext}).RoundTrip(mustRequest("http://api.example.com/"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ended <- g.proxy.Shutdown(ctx)
	}()
	await(t, func() bool {
		c, err := net.Dial("tcp", publicIP+":80")
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(more)
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "end" {
		t.Errorf("the answer that was under way: %q %v", b, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAGatewayThatKnowsNothingYetSaysSo(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", toAPI))
	o := routing.Objects{Incomplete: true, Services: []routing.Service{}}
	for doc := range strings.SplitSeq(gatewayOf(plainServer), "\n---\n") {
		if _, err := o.Decode([]byte(doc), "default"); err != nil {
			t.Fatal(err)
		}
	}
	table, _ := routing.Compile(o, &routing.Workload{Namespace: "remora-gateway", Labels: map[string]string{"istio": "ingressgateway"}, Gateway: true})
	g.store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	if got := g.call("GET", "http://api.example.com/", ""); got.status != 503 || !strings.Contains(got.body, string(routing.ConfigurationUnread)) {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestValuesThatCouldEndALineDoNot(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - match: [{uri: {prefix: /a}}]
    rewrite: {uri: /b}
    headers: {request: {set: {x-set: "one\r\nX-Smuggled: yes", "x-bad name": v, content-length: "0", transfer-encoding: chunked}}, response: {set: {x-set: "one\r\nX-Smuggled: yes"}}}
    route: [{destination: {host: api}}]`))
	got := g.raw("POST /a%0d%0aX-Smuggled:%20yes HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")
	if got.status != 200 || got.header.Get("X-Smuggled") != "" {
		t.Errorf("got %d %v", got.status, got.header)
	}
	if q := g.api.last(); q.Header.Get("X-Smuggled") != "" || q.body != "body" || q.ContentLength != 4 || q.URL.EscapedPath() != "/b%0d%0aX-Smuggled:%20yes" {
		t.Errorf("the backend got %s %v %q", q.URL.EscapedPath(), q.Header, q.body)
	}
}
