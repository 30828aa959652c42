package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/snapshot"
)

// serving runs a proxy that change has altered, and gives its address.
func serving(t *testing.T, change func(*Proxy)) string {
	t.Helper()
	p, err := New(Options{Store: snapshot.NewStore(), Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	change(p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// exchange sends text and reads all that comes until the proxy closes.
func exchange(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

func TestHalfARequestIsAnsweredAndClosed(t *testing.T) {
	addr := serving(t, func(p *Proxy) { p.server.ReadTimeout = 50 * time.Millisecond })
	for _, text := range []string{"POST / HT", "POST / HTTP/1.1\r\nHost: a\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"} {
		if got := exchange(t, addr, text); !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, `"code":"RequestTimeout"`) {
			t.Errorf("%q is answered %q", text, got)
		}
	}
}

func TestAFaultOfTheSidecarEndsOneRequestOnly(t *testing.T) {
	addr := serving(t, func(p *Proxy) {
		p.store = snapshot.NewStore()
		p.store.Publish(&snapshot.Snapshot{}) // no table: every request meets a nil pointer
	})
	for range 2 {
		got := exchange(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 500 || !strings.Contains(string(b), `"code":"InternalError"`) {
			t.Errorf("got %d %s", resp.StatusCode, b)
		}
	}
}

func TestTheEndDoesNotWaitForConnectionsWithoutARequest(t *testing.T) {
	var p *Proxy
	addr := serving(t, func(made *Proxy) { p = made })
	for _, text := range []string{"", "POST / HTTP/1.1\r\nHo"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestAHeadThatDoesNotArriveIsAnsweredAndForwardedToNobody(t *testing.T) {
	var p *Proxy
	serving(t, func(made *Proxy) {
		p = made
		p.server.ReadTimeout = 50 * time.Millisecond
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.take(client.(*net.TCPConn), netip.MustParseAddrPort("192.0.2.80:80"))
	}()
	if got := exchange(t, l.Addr().String(), "GET / HTTP/1.1\r\nHost: fore"); !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, `"code":"RequestTimeout"`) {
		t.Errorf("it is answered %q", got)
	}
}
