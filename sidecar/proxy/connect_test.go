package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
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
