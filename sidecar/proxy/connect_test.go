package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// tunnel asks for one, as undici's ProxyAgent does even for http:// URLs.
func (r *rig) tunnel(authority string) (net.Conn, *bufio.Reader, *http.Response) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(conn)
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", authority, authority)
	resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		r.t.Fatal(err)
	}
	return conn, in, resp
}

func TestATunnelToAnOwnedHostEndsInTheSidecar(t *testing.T) {
	r := newRig(t, providers)
	conn, in, resp := r.tunnel(qwen + ":80")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Length") != "" || resp.Header.Get("Transfer-Encoding") != "" {
		t.Fatalf("got %s %v", resp.Status, resp.Header)
	}
	for range 2 {
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", qwen, len(prompt), prompt)
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(answer.Body); answer.StatusCode != 200 {
			t.Fatalf("got %d %s", answer.StatusCode, b)
		}
		if q := r.last(); !q.TLS || q.Header.Get("Authorization") != "Bearer sk-qwen-0123456789" {
			t.Errorf("the provider got %+v", q)
		}
	}
	// Inside the tunnel the same rules hold: what is not owned is not served.
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n")
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(answer.Body)
	reply{answer.StatusCode, answer.Header, string(b)}.wantError(t, 421, routing.MisdirectedRequest)
}

func TestATunnelThatWouldHideTheRequestsIsRefused(t *testing.T) {
	r := newRig(t, providers)
	_, _, resp := r.tunnel(qwen + ":443")
	b, _ := io.ReadAll(resp.Body)
	reply{resp.StatusCode, resp.Header, string(b)}.wantError(t, 405, routing.MethodNotAllowed, "call it with http://")
}

// elsewhere is an address of nobody that the configuration names.
const elsewhere = "127.0.0.6:7000"

// openTunnel asks for a tunnel and says something before it is there.
func (r *rig) openTunnel(authority, version, early string) *wire {
	r.t.Helper()
	w := r.dial()
	w.send("CONNECT " + authority + " HTTP/" + version + "\r\nHost: " + authority + "\r\nConnection: close\r\n\r\n" + early)
	line, err := w.in.ReadString('\n')
	rest, err2 := w.in.ReadString('\n')
	if err != nil || err2 != nil || line != "HTTP/1.1 200 Connection established\r\n" || rest != "\r\n" {
		r.t.Fatalf("%q %q %v", line, rest, err)
	}
	return w
}

func TestATunnelToAForeignHostPassesWhatEitherSideSays(t *testing.T) {
	r := newRig(t, providers)
	remote(t, elsewhere, func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				_, _ = io.WriteString(c, "that was all") // it has finished, but still listens
				return
			}
			_, _ = io.WriteString(c, "you said "+line)
		}
	})
	for _, version := range []string{"1.1", "1.0"} {
		w := r.openTunnel(elsewhere, version, "first\n")
		hear(t, w.in, "you said first\n")
		w.send("second\n")
		hear(t, w.in, "you said second\n")
		if err := w.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(w.in); err != nil || string(rest) != "that was all" {
			t.Errorf("%s: %q %v", version, rest, err)
		}
	}
}

func TestATunnelEndsWithEitherSide(t *testing.T) {
	r := newRig(t, providers)
	ended := make(chan error, 1)
	remote(t, elsewhere, func(c *net.TCPConn) {
		buf := make([]byte, 100)
		n, _ := c.Read(buf)
		if string(buf[:n]) == "leave" {
			return
		}
		_, err := c.Read(buf)
		ended <- err
	})
	w := r.openTunnel(elsewhere, "1.1", "leave")
	if b, err := io.ReadAll(w.in); len(b) > 0 || err != nil {
		t.Errorf("%q %v", b, err)
	}
	w = r.openTunnel(elsewhere, "1.1", "stay")
	_ = w.Conn.(*net.TCPConn).SetLinger(0)
	_ = w.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it goes on")
		}
	case <-time.After(20 * time.Second):
		t.Error("the host was not told")
	}
}

func TestATunnelThatCannotBeIsExplained(t *testing.T) {
	r := newRig(t, providers)
	_, port, _ := net.SplitHostPort(r.addr)
	for _, c := range []struct {
		authority string
		status    int
		code      routing.Code
	}{
		{"127.0.0.6:9", 502, routing.ConnectFailure},
		{"unheard-of.example.com:443", 502, routing.ConnectFailure},
		{r.addr, 421, routing.MisdirectedRequest},
		{"loop.example.com:" + port, 421, routing.MisdirectedRequest},
		{"foreign.example.com", 400, routing.InvalidRequest},
		{"foreign.example.com:0", 400, routing.InvalidRequest},
		{"user@foreign.example.com:443", 400, routing.InvalidRequest},
	} {
		_, _, resp := r.tunnel(c.authority)
		b, _ := io.ReadAll(resp.Body)
		reply{resp.StatusCode, resp.Header, string(b)}.wantError(t, c.status, c.code)
	}
	r.store.Publish(&snapshot.Snapshot{Table: incomplete(t), Ready: true})
	_, _, resp := r.tunnel(elsewhere)
	b, _ := io.ReadAll(resp.Body)
	reply{resp.StatusCode, resp.Header, string(b)}.wantError(t, 503, routing.ConfigurationUnread)
}

func TestShutdownWaitsForTunnelsAndCutsThemAtItsEnd(t *testing.T) {
	r := newRig(t, providers)
	remote(t, elsewhere, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	short, long := r.openTunnel(elsewhere, "1.1", "a"), r.openTunnel(elsewhere, "1.1", "b")
	hear(t, short.in, "a")
	hear(t, long.in, "b")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- r.proxy.Shutdown(ctx) }()
	for { // until it takes no more
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	short.send("more")
	hear(t, short.in, "more")
	_ = short.Close()
	if _, err := io.ReadAll(long.in); errors.Is(err, context.DeadlineExceeded) {
		t.Error("it was not cut")
	}
	if err := <-over; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if r.log.find(`"connections"=1`) == "" {
		t.Error("the log does not say that one was cut")
	}
}
