package proxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

func TestAGatewayServesTheHostsOfItsVirtualServicesAndNothingElse(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", toAPI))
	got := g.call("POST", "http://api.example.com/v1/models?a=b", "anything at all", "X-Forwarded-For", "192.0.2.7", "X-Forwarded-Proto", "https", "X-Forwarded-Client-Cert", "forged", "Forwarded", "for=forged")
	if got.status != 200 || got.body != "api /v1/models" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	q := g.api.last()
	h := q.Header
	if q.Host != "api.example.com" || q.URL.RawQuery != "a=b" || q.body != "anything at all" {
		t.Errorf("the backend got %s %s %q", q.Host, q.URL, q.body)
	}
	if h.Get("X-Forwarded-For") != "192.0.2.7, 127.0.0.1" || h.Get("X-Forwarded-Proto") != "http" || h.Get("X-Forwarded-Host") != "api.example.com" || h.Get("X-Forwarded-Client-Cert")+h.Get("Forwarded") != "" {
		t.Errorf("the backend is told %v", h)
	}
	refused := func(status int, code routing.Code, got reply) {
		t.Helper()
		if got.status != status || !strings.Contains(got.body, fmt.Sprintf("%q", code)) {
			t.Errorf("got %d %s, want %d %s", got.status, got.body, status, code)
		}
	}
	before := g.api.count() + g.other.count()
	refused(404, routing.HostNotServed, g.call("GET", "http://other.example.com/", ""))
	refused(404, routing.HostNotServed, g.call("GET", "http://other.default.svc.cluster.local/", ""))
	refused(404, routing.HostNotServed, g.raw("GET http://other.default.svc.cluster.local/ HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"))
	refused(405, routing.MethodNotAllowed, g.raw("CONNECT api.example.com:80 HTTP/1.1\r\nHost: api.example.com\r\n\r\n"))
	refused(405, routing.MethodNotAllowed, g.raw("CONNECT 127.0.0.4:80 HTTP/1.1\r\nHost: 127.0.0.4\r\n\r\n"))
	refused(400, routing.InvalidRequest, g.raw("GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: other.example.com\r\nConnection: close\r\n\r\n"))
	refused(400, routing.InvalidRequest, g.raw("GET / HTTP/1.1\r\nHost: api.example.com@other\r\nConnection: close\r\n\r\n"))
	refused(400, routing.InvalidRequest, g.raw("GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n"))
	for _, path := range []string{"/v1/../admin", "/v1/%2e%2E/admin", "/v1/..;x/admin", "/v1/..%2fadmin", "/.", `/v1/..\admin`} {
		refused(400, routing.InvalidRequest, g.raw("GET "+path+" HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"))
	}
	if g.api.count()+g.other.count() != before {
		t.Error("a refused request has reached a backend")
	}
	if got := g.raw("GET http://API.example.com.:8080/x HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n"); got.status != 200 {
		t.Errorf("a whole URL of a host that is served: %d %s", got.status, got.body)
	}
	if got := g.call("GET", "http://api.example.com/v1.2/..x/a..b", ""); got.status != 200 {
		t.Errorf("dots that lead nowhere: %d", got.status)
	}
}

// raw sends bytes to port 80 and reads one answer.
func (g *gatewayRig) raw(request string) reply {
	g.t.Helper()
	conn, err := net.Dial("tcp", publicIP+":80")
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		g.t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func TestACertificateIsChangedUnderLoadWithoutAFailedRequest(t *testing.T) {
	ca := newAuthority(t, "ca")
	g := newGateway(t, "")
	config := gatewayOf(secured("https", "SIMPLE", "cert", "*.example.com")) + virtual("api.example.com", toAPI)
	g.secrets = []routing.Secret{ca.secret(t, "cert", "api.example.com")}
	g.apply(config)
	var failed, done atomic.Int64
	var all sync.WaitGroup
	stop := make(chan struct{})
	for i := range 8 {
		by := &http.Transport{DialContext: g.dialContext, TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, DisableKeepAlives: i%2 == 0}
		all.Go(func() {
			defer by.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got, err := g.try(by, "POST", "https://api.example.com/x", "hello"); err != nil || got.status != 200 {
					failed.Add(1)
					t.Logf("%v %d %s", err, got.status, got.body)
				}
				done.Add(1)
			}
		})
	}
	for range 30 {
		g.secrets = []routing.Secret{ca.secret(t, "cert", "api.example.com")}
		g.apply(config)
		n := done.Load()
		await(t, func() bool { return done.Load() >= n+20 })
	}
	close(stop)
	all.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), done.Load())
	}
	// The last one is the one that is served.
	conn, err := tls.Dial("tcp", publicIP+":443", &tls.Config{RootCAs: ca.pool(), ServerName: "api.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	last, _ := tls.X509KeyPair([]byte(g.secrets[0].Data["tls.crt"].Reveal()), []byte(g.secrets[0].Data["tls.key"].Reveal()))
	if string(conn.ConnectionState().PeerCertificates[0].Raw) != string(last.Certificate[0]) {
		t.Error("an earlier certificate is served")
	}
	if h := g.api.last().Header; h.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("the backend is told %v", h)
	}
}

func TestAConnectionServesOnlyTheServerItWasBegunFor(t *testing.T) {
	ca := newAuthority(t, "ca")
	g := newGateway(t, "")
	g.secrets = []routing.Secret{ca.secret(t, "cert", "open.example.com", "closed.example.com")}
	g.apply(gatewayOf(secured("open", "SIMPLE", "cert", "open.example.com")+"\n"+secured("closed", "MUTUAL", "cert", "closed.example.com")) +
		virtual("open.example.com", toAPI) + virtual("closed.example.com", toAPI))
	by := func(c *tls.Config) *http.Transport {
		c.RootCAs = ca.pool()
		tr := &http.Transport{DialContext: g.dialContext, TLSClientConfig: c}
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	sessions := tls.NewLRUClientSessionCache(8)
	open := by(&tls.Config{ClientSessionCache: sessions})
	if got, err := g.try(open, "GET", "https://open.example.com/", ""); err != nil || got.status != 200 {
		t.Fatalf("%v %d %s", err, got.status, got.body)
	}
	for _, host := range []string{"closed.example.com", "CLOSED.example.com.:443"} {
		if got, err := g.try(open, "GET", "https://open.example.com/", "", "Host", host); err != nil || got.status != 421 {
			t.Errorf("the host of a server that asks for a certificate: %v %d %s", err, got.status, got.body)
		}
	}
	if _, err := g.try(by(&tls.Config{ClientSessionCache: sessions}), "GET", "https://closed.example.com/", ""); err == nil {
		t.Error("a client without a certificate was let in")
	}
	stranger := newAuthority(t, "stranger")
	if _, err := g.try(by(&tls.Config{Certificates: []tls.Certificate{stranger.client(t, "me")}}), "GET", "https://closed.example.com/", ""); err == nil {
		t.Error("a client with a certificate of somebody else was let in")
	}
	known := by(&tls.Config{Certificates: []tls.Certificate{ca.client(t, "me")}})
	if got, err := g.try(known, "GET", "https://closed.example.com/", ""); err != nil || got.status != 200 {
		t.Errorf("a client with its certificate: %v %d %s", err, got.status, got.body)
	}
	if _, err := tls.Dial("tcp", publicIP+":443", &tls.Config{ServerName: "nobody.example.com", InsecureSkipVerify: true}); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a name that nobody has: %v", err)
	}

	// The authority that client certificates are verified with is another now: who was let in by the old one is not, on the same connection.
	next := newAuthority(t, "next")
	changed := g.secrets[0]
	changed.Data = map[string]routing.Key{"tls.crt": changed.Data["tls.crt"], "tls.key": changed.Data["tls.key"], "ca.crt": routing.NewKey(string(next.pem))}
	g.secrets = []routing.Secret{changed}
	g.apply(gatewayOf(secured("open", "SIMPLE", "cert", "open.example.com")+"\n"+secured("closed", "MUTUAL", "cert", "closed.example.com")) +
		virtual("open.example.com", toAPI) + virtual("closed.example.com", toAPI))
	if got, err := g.try(known, "GET", "https://closed.example.com/", ""); err != nil || got.status != 421 {
		t.Errorf("a client whose authority was taken away: %v %d %s", err, got.status, got.body)
	}
	if _, err := g.try(known, "GET", "https://closed.example.com/", ""); err == nil {
		t.Error("it was let in again")
	}
	if got, err := g.try(open, "GET", "https://open.example.com/", ""); err != nil || got.status != 200 {
		t.Errorf("others: %v %d %s", err, got.status, got.body)
	}
}

func TestTLSIsPassedThroughByItsName(t *testing.T) {
	ca := newAuthority(t, "ca")
	chain, key := ca.issue(t, "pass.example.com")
	pair, _ := tls.X509KeyPair(chain, key)
	behind, err := tls.Listen("tcp", "127.0.0.5:443", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}
	go func() { _ = server.Serve(behind) }()
	t.Cleanup(func() { _ = server.Close() })
	g := newGateway(t, "")
	g.secrets = []routing.Secret{ca.secret(t, "cert", "api.example.com")}
	g.apply(gatewayOf(secured("https", "SIMPLE", "cert", "api.example.com")+"\n"+
		`  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ["pass.example.com"], tls: {mode: PASSTHROUGH}}`) +
		virtual("api.example.com", toAPI) + `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pass}
spec:
  hosts: [pass.example.com]
  gateways: [edge]
  tls:
  - match: [{port: 443, sniHosts: [pass.example.com]}]
    route: [{destination: {host: dead, port: {number: 443}}}]
`)
	by := &http.Transport{DialContext: g.dialContext, TLSClientConfig: &tls.Config{RootCAs: ca.pool()}}
	defer by.CloseIdleConnections()
	large := strings.Repeat("0123456789", 200_000)
	if got, err := g.try(by, "POST", "https://pass.example.com/", large); err != nil || got.body != large {
		t.Fatalf("passed through: %v %d, %d bytes", err, got.status, len(got.body))
	}
	if got, err := g.try(by, "POST", "https://api.example.com/", "x"); err != nil || got.status != 200 {
		t.Errorf("ended here, on the same port: %v %d", err, got.status)
	}
	if got, err := g.try(by, "POST", "https://api.example.com/", "x", "Host", "pass.example.com"); err != nil || got.status != 421 {
		t.Errorf("what is passed through, on a connection that ends here: %v %d", err, got.status)
	}
}

func TestAServerCanSendItsClientsToHTTPS(t *testing.T) {
	g := newGateway(t, gatewayOf(`  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"], tls: {httpsRedirect: true}}`)+virtual("api.example.com", toAPI))
	got := g.call("GET", "http://api.example.com:80/a%20b?c=d", "")
	if got.status != 301 || got.header.Get("Location") != "https://api.example.com/a%20b?c=d" {
		t.Errorf("got %d %v", got.status, got.header)
	}
	if g.api.count() > 0 {
		t.Error("the backend was called")
	}
}

func TestAPortThatIsTakenStopsNoOtherAndIsTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp", publicIP+":8081")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g := newGateway(t, gatewayOf(plainServer+"\n"+`  - {port: {number: 8081, name: http2, protocol: HTTP}, hosts: ["*"]}`)+virtual("api.example.com", toAPI))
	if got := g.call("GET", "http://api.example.com/", ""); got.status != 200 {
		t.Errorf("the other port: %d", got.status)
	}
	if line := g.log.find(string(routing.PortConflict)); !strings.Contains(line, "8081") || !strings.Contains(line, "another process has it") || !strings.Contains(line, "default/edge") {
		t.Errorf("the log says %q", line)
	}
	_ = taken.Close()
	await(t, func() bool { return g.log.find(`"listening" "port"=8081`) != "" })
	if got := g.call("GET", "http://api.example.com:8081/", ""); got.status != 200 {
		t.Errorf("the port that was taken: %d", got.status)
	}
}

func TestAListenerThatGoesAwayEndsItsAnswersInPeace(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer+"\n"+`  - {port: {number: 8082, name: http2, protocol: HTTP}, hosts: ["*"]}`)+virtual("api.example.com", toAPI))
	more := make(chan struct{})
	g.api.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			_, _ = io.WriteString(w, "first ")
			w.(http.Flusher).Flush()
			<-more
		}
		_, _ = io.WriteString(w, "last")
	})
	kept := &http.Transport{DialContext: g.dialContext}
	defer kept.CloseIdleConnections()
	if got, err := g.try(kept, "GET", "http://api.example.com/", ""); err != nil || got.status != 200 {
		t.Fatal(err, got.status)
	}
	idle, err := net.Dial("tcp", publicIP+":8082")
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	slow, err := kept.RoundTrip(mustRequest("http://api.example.com:8082/slow"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	first := make([]byte, 6)
	if _, err := io.ReadFull(slow.Body, first); err != nil {
		t.Fatal(err)
	}
	connections := g.api.count()
	g.apply(gatewayOf(plainServer) + virtual("api.example.com", toAPI))
	if c, err := net.Dial("tcp", publicIP+":8082"); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
	_ = idle.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection without a request: %v", err)
	}
	close(more)
	if rest, err := io.ReadAll(slow.Body); err != nil || string(rest) != "last" {
		t.Errorf("the answer that was under way: %q %v", rest, err)
	}
	if got, err := g.try(kept, "GET", "http://api.example.com/", ""); err != nil || got.status != 200 || g.api.count() != connections+1 {
		t.Errorf("the connection of the other port: %v %d", err, got.status)
	}
}

func mustRequest(url string) *http.Request {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		panic(err)
	}
	return r
}
