package proxy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
)

func redirectedOnly(o *proxy.Options) { o.RedirectedOnly = true }

// direct connects to the listener that redirected connections end at.
func direct(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

func TestACallToTheSidecarsOwnPortIsRefusedWhereConnectionsAreRedirected(t *testing.T) {
	r := newRig(t, providers, redirectedOnly)
	r.redirect()
	calls := map[string]string{
		"for an owned host": chat(qwen),
		"as to a proxy":     "POST http://" + qwen + "/ HTTP/1.1\r\nHost: " + qwen + "\r\n" + lengthOf(prompt) + "\r\n" + prompt,
		"for a foreign one": "GET http://foreign.example.com/ HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n",
		"CONNECT":           "CONNECT " + qwen + ":80 HTTP/1.1\r\nHost: " + qwen + ":80\r\n\r\n",
		"HTTP/1.0":          "GET / HTTP/1.0\r\n\r\n",
		"a WebSocket":       "GET /v1/realtime HTTP/1.1\r\nHost: " + qwen + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"a large body":      "POST / HTTP/1.1\r\nHost: " + qwen + "\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", 1<<20),
	}
	for name, call := range calls {
		for _, address := range []string{r.addr, "127.0.0.1:" + redirectPort, "[::1]:" + redirectPort} {
			c := direct(t, address)
			go func() { _, _ = io.WriteString(c, call) }()
			in := bufio.NewReader(c)
			got := answered(t, in)
			got.wantError(t, http.StatusForbidden, routing.DirectConnection, "call the provider's own name", "port 80")
			if got.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%s: SDKs would try again: %v", name, got.header)
			}
			_ = c.CloseWrite()
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("%s: the connection goes on: %q, %v", name, rest, err)
			}
		}
	}
	if n := len(r.provider.Requests()); n != 0 {
		t.Errorf("%d calls reached a provider", n)
	}
	if got := r.failures()[string(routing.DirectConnection)]; got != 3*len(calls) {
		t.Errorf("%d are counted, of %d", got, 3*len(calls))
	}
	if n := r.log.count("DirectConnection"); n != 1 || !strings.Contains(r.log.find("DirectConnection"), `"uid"=0`) {
		t.Errorf("%d lines in the log, such as %s", n, r.log.find("DirectConnection"))
	}
	c := app(t, r.world)
	say(t, c, chat(qwen))
	if got := answered(t, bufio.NewReader(c)); got.status != http.StatusOK {
		t.Errorf("a redirected call is answered %+v", got)
	}
}

func TestWhatIsNoRequestOnTheSidecarsOwnPortIsClosedWithoutAWord(t *testing.T) {
	r := newRig(t, providers, redirectedOnly)
	r.redirect()
	var all sync.WaitGroup
	for i, text := range []string{"", "\x16\x03\x01\x00\x05hello", "\r\n\r\n", "GET /\r\n", "EHLO there\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET", strings.Repeat("x", 64<<10), "\x00\n", " GET / HTTP/1.1\r\n\r\n"} {
		for range 10 {
			all.Go(func() {
				c := direct(t, "127.0.0.1:"+redirectPort)
				_, _ = io.WriteString(c, text) // it may be closed meanwhile
				_ = c.CloseWrite()
				if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%d: answered %q, %v", i, b, err)
				}
			})
		}
	}
	all.Wait()
	if got := r.failures()[string(routing.DirectConnection)]; got != 100 {
		t.Errorf("%d are counted, of 100", got)
	}
}

func TestDirectConnectionsDoNotHoldUpTheEnd(t *testing.T) {
	r := newRig(t, providers, redirectedOnly)
	for range 10 {
		direct(t, r.addr)
	}
	for r.failures()[string(routing.DirectConnection)] < 10 {
		runtime.Gosched()
	}
	// The rig ends with the test, and fails where that takes long.
}
