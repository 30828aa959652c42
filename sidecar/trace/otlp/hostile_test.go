package otlp

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	api "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/test/collector"
)

const taken = "sent" // in place of a reason of dropping

// hostile has spans sent to a collector that does with each connection what answer does, and expects what becomes of them.
func hostile(t *testing.T, endpoint, want, logged string, answer func(conn net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
		t.Cleanup(func() { _ = n.Close() })
		go func() {
			for {
				conn, err := n.Accept()
				if err != nil {
					return
				}
				go func() {
					answer(conn)
					_ = conn.Close()
				}()
			}
		}()
		r := newRig(t)
		r.dial = n.dial
		s := to(endpoint)
		s.Traces.Headers = map[string]string{"Authorization": "Bearer tell-nobody"}
		r.Record(sampled(), s)
		<-time.After(batchTime + retryTime + answerTime)
		synctest.Wait()
		if want == taken {
			r.counts(spansOfSampled, "", 0)
		} else {
			r.counts(0, want, spansOfSampled)
		}
		said := r.logged()
		if !strings.Contains(said, logged) || strings.Contains(said, "\n") || len(said) > 600 {
			t.Errorf("the log says\n%s\nwant %s", said, logged)
		}
		if strings.Contains(said, "tell-nobody") {
			t.Errorf("the log tells a header")
		}
		r.inside(func() {
			if r.ended != nil || r.queue.spans != 0 {
				t.Errorf("%d spans still wait", r.queue.spans)
			}
		})
		<-time.After(idleTime)
		synctest.Wait() // a goroutine that stays has the bubble fail
	})
}

const somewhere = "http://collector.example:4318"

// after reads the request first.
func after(answer func(w io.Writer)) func(net.Conn) {
	return func(conn net.Conn) {
		q, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, q.Body); err == nil {
			answer(conn)
		}
	}
}

// endless writes until nobody takes it.
func endless(w io.Writer, what string) {
	for {
		if _, err := io.WriteString(w, what); err != nil {
			return
		}
	}
}

func TestAHostileCollectorCostsSpansAndNothingElse(t *testing.T) {
	f := func(want, logged string, answer func(net.Conn)) {
		t.Helper()
		hostile(t, somewhere, want, logged, answer)
	}
	says := func(text string) func(net.Conn) {
		return after(func(w io.Writer) { _, _ = io.WriteString(w, text) })
	}
	f(droppedUnreachable, "UpstreamInvalid", func(net.Conn) {})
	f(droppedUnreachable, "UpstreamInvalid", says(""))
	f(droppedUnreachable, "UpstreamInvalid", says("SSH-2.0-OpenSSH_9.9\r\n"))
	f(droppedUnreachable, "UpstreamInvalid", says(strings.Repeat("x", 4000)+"\r\n\r\n"))
	f(droppedUnreachable, "UpstreamInvalid", says("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"))
	f(droppedUnreachable, "UpstreamInvalid", says("HTTP/1.1 200 OK\r\nX"))
	f(droppedUnreachable, "UpstreamInvalid", after(func(w io.Writer) { endless(w, "HTTP/1.1 100 Continue\r\n\r\n") }))
	f(droppedUnreachable, "UpstreamInvalid", after(func(w io.Writer) { endless(w, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n") }))
	f(droppedUnreachable, "UpstreamInvalid", after(func(w io.Writer) {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
		endless(w, "X: y\r\n")
	}))
	f(droppedUnreachable, "UpstreamInvalid", after(func(w io.Writer) { endless(w, "x") }))
	f(droppedUnreachable, "DeadlineExceeded", func(net.Conn) { // reads nothing
		<-time.After(2 * answerTime)
	})
	f(droppedUnreachable, "DeadlineExceeded", func(conn net.Conn) { // answers nothing
		_, _ = io.Copy(io.Discard, conn)
	})
	f(droppedUnreachable, "DeadlineExceeded", after(func(w io.Writer) { // answers slowly
		for _, err := io.WriteString(w, "HTTP/1.1 200 OK\r\nX: "); err == nil; _, err = io.WriteString(w, "y") {
			<-time.After(time.Second)
		}
	}))

	// What its status says has happened, whatever comes after it.
	f(taken, "", says("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"))
	f(taken, "", says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\xff\xff\xff\xff\xff"))
	f(taken, "", says("HTTP/1.1 204 No Content\r\n\r\n"))
	f(taken, "", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense"))
	f(taken, "", after(func(w io.Writer) { // ends its answer never
		for _, err := io.WriteString(w, "HTTP/1.1 200 OK\r\n\r\n"); err == nil; _, err = io.WriteString(w, "y") {
			<-time.After(time.Second)
		}
	}))

	f(droppedRefused, "not followed", says("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere.example/steal\r\nContent-Length: 0\r\n\r\n"))
	f(droppedRefused, "status 101", says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"))
	f(droppedRefused, "status 401", says("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"))
	f(droppedRefused, "status 404", says("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
	f(droppedRefused, "status 500", says("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"))
	f(droppedRefused, "status 999", says("HTTP/1.1 999 Fun\r\nContent-Length: 0\r\n\r\n"))
	f(droppedRefused, "status 503", says("HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"))
}

func TestAHandshakeThatNeverEndsIsGivenUp(t *testing.T) {
	hostile(t, "https://collector.example:4318", droppedUnreachable, "DeadlineExceeded", func(conn net.Conn) {
		_, _ = io.Copy(io.Discard, conn)
	})
}

func TestNoMoreThanALittleOfAnAnswerIsRead(t *testing.T) {
	var read atomic.Int64
	hostile(t, somewhere, taken, "", after(func(w io.Writer) {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
		for block := make([]byte, 1024); ; read.Add(int64(len(block))) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	if n := read.Load(); n > 2*maxAnswer {
		t.Errorf("%d bytes were taken", n)
	}
}

func TestAConnectionThatTheCollectorHasClosedMeanwhileIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
		t.Cleanup(func() { _ = n.Close() })
		go func() {
			for {
				conn, err := n.Accept()
				if err != nil {
					return
				}
				reader := bufio.NewReader(conn)
				for answers := 0; answers < 2; answers++ { // the second request of a connection is read and has no answer
					q, err := http.ReadRequest(reader)
					if err != nil {
						break
					}
					if q.Header["Idempotency-Key"] != nil {
						t.Errorf("sent with %v", q.Header)
					}
					_, _ = io.Copy(io.Discard, q.Body)
					if answers == 0 {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				}
				_ = conn.Close()
			}
		}()
		r := newRig(t)
		r.dial = n.dial
		for range 4 {
			r.Record(sampled(), to(somewhere))
			<-time.After(batchTime)
			synctest.Wait()
		}
		r.counts(4*spansOfSampled, "", 0)
		if said := r.logged(); said != "" {
			t.Errorf("the log says\n%s", said)
		}
		r.flush()
	})
}

func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere := collecting(t, collector.Options{})
	for _, code := range []int{301, 302, 303, 307, 308} {
		c := collecting(t, collector.Options{})
		c.Instead(status(code, "Location", elsewhere.URL+collector.Path))
		r := newRig(t)
		r.Record(sampled(), to(c.URL))
		r.flush()
		r.counts(0, droppedRefused, spansOfSampled)
	}
	if n := len(elsewhere.Requests()); n != 0 {
		t.Errorf("%d requests came to where the redirect leads", n)
	}
}

func TestSpansThatTheCollectorRejectsAreCounted(t *testing.T) {
	f := func(rejected int64, sent, dropped int) {
		t.Helper()
		c := collecting(t, collector.Options{})
		c.Instead(func(w http.ResponseWriter, _ *http.Request) {
			answer, _ := proto.Marshal(&api.ExportTraceServiceResponse{PartialSuccess: &api.ExportTracePartialSuccess{RejectedSpans: rejected, ErrorMessage: "too much"}})
			_, _ = w.Write(answer)
		})
		r := newRig(t)
		r.Record(sampled(), to(c.URL))
		r.flush()
		r.counts(sent, droppedRefused, dropped)
	}
	f(0, 2, 0)
	f(1, 1, 1)
	f(2, 0, 2)
	f(1<<62, 0, 2)
	f(-1, 0, 2)
}

func TestACollectorIsVerified(t *testing.T) {
	c := collecting(t, collector.Options{})
	server := httptest.NewUnstartedServer(c)
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))

	r := newRig(t)
	r.Record(sampled(), to(server.URL))
	r.flush()
	r.counts(0, droppedUnreachable, spansOfSampled)
	if said := r.logged(); !strings.Contains(said, "UntrustedCertificate") {
		t.Errorf("the log says\n%s", said)
	}

	trusting := to(server.URL)
	trusting.Traces.CABundle = authority
	r = newRig(t)
	r.Record(sampled(), trusting)
	r.flush()
	r.counts(spansOfSampled, "", 0)

	old := httptest.NewUnstartedServer(c)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10} //nolint:gosec // it is what must not be talked with
	old.Config.ErrorLog = nil
	old.StartTLS()
	t.Cleanup(old.Close)
	trusting = to(old.URL)
	trusting.Traces.CABundle = authority
	r = newRig(t)
	r.Record(sampled(), trusting)
	r.flush()
	r.counts(0, droppedUnreachable, spansOfSampled)
}

func TestSettingsThatCannotBeUsedCostSpansAndSayWhy(t *testing.T) {
	f := func(change func(s *telemetry.Traces)) {
		t.Helper()
		s := to("https://collector.example:4318")
		change(&s.Traces)
		r := newRig(t)
		r.dial = func(context.Context, string, string) (net.Conn, error) {
			return nil, fmt.Errorf("it must not be called")
		}
		r.Record(sampled(), s)
		r.flush()
		r.counts(0, droppedInvalid, spansOfSampled)
		if said := r.logged(); !strings.Contains(said, "InvalidValue") || strings.Contains(said, "tell-nobody") {
			t.Errorf("the log says\n%s", said)
		}
	}
	f(func(s *telemetry.Traces) { s.CABundle = "no certificate" })
	f(func(s *telemetry.Traces) { s.Endpoint = "collector:4318" })
	f(func(s *telemetry.Traces) { s.Endpoint = "unix:///run/collector.sock" })
	f(func(s *telemetry.Traces) { s.Endpoint = "file:///etc/passwd" })
	f(func(s *telemetry.Traces) { s.Endpoint = "http://" })
	f(func(s *telemetry.Traces) { s.Endpoint = "http://user:tell-nobody@collector.example" })
	f(func(s *telemetry.Traces) { s.Endpoint = "http://collector.example\r\nX: y" })
	f(func(s *telemetry.Traces) { s.Endpoint = "http://collector.example?key=tell-nobody" })
}

func TestTheHeadersOfARequestAreThoseOfTheSettingsAndOurs(t *testing.T) {
	c := collecting(t, collector.Options{})
	r := newRig(t)
	s := to(c.URL + "/")
	s.Traces.Headers = map[string]string{"Authorization": "Bearer secret", "x-scope-orgid": "demo", "Content-Type": "text/plain", "traceparent": "nonsense"}
	r.Record(sampled(), s)
	r.flush()
	r.counts(spansOfSampled, "", 0)
	h := c.Requests()[0].Header
	if h.Get("Authorization") != "Bearer secret" || h.Get("X-Scope-Orgid") != "demo" || h.Get("User-Agent") != "remora-sidecar/1.2.3" {
		t.Errorf("%v", h)
	}
	// Whoever traces the way to the collector must not make spans of it, which would be sent by the same way.
	if p := h.Get("Traceparent"); !strings.HasSuffix(p, "-02") || len(h["Traceparent"]) != 1 {
		t.Errorf("traceparent is %q", h["Traceparent"])
	}
}

func TestAnEndpointMayHaveAPath(t *testing.T) {
	f := func(endpoint, want string) {
		t.Helper()
		u, err := address(endpoint)
		if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", endpoint, u, err)
		}
	}
	f("http://c:4318", "http://c:4318/v1/traces")
	f("http://c:4318/", "http://c:4318/v1/traces")
	f("https://c/otlp", "https://c/otlp/v1/traces")
	f("https://c/api/otel/", "https://c/api/otel/v1/traces")
	f("http://[::1]:4318", "http://[::1]:4318/v1/traces")
}

func FuzzAnAnswer(f *testing.F) {
	answer, _ := proto.Marshal(&api.ExportTraceServiceResponse{PartialSuccess: &api.ExportTracePartialSuccess{RejectedSpans: 3, ErrorMessage: "no"}})
	f.Add(answer)
	f.Fuzz(func(t *testing.T, body []byte) {
		if n := rejected(body); n < 0 || n > queueSpans {
			t.Errorf("%d", n)
		}
	})
}
