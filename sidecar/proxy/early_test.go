package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What an app passes on for others, such as a recording, may look like a request in its middle.
func TestABodyThatTheProviderDoesNotWantIsNoRequest(t *testing.T) {
	r := newRig(t, rawConfig(""))
	// The kernel is to keep little of the body, so that sending it fails when the provider hangs up.
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) {
			err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096), syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1000))
		})
		return err
	}}
	l, err := small.Listen(t.Context(), "tcp", rawHost+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
	}()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	body := strings.Repeat("x", 1<<20) + "GET /v1/models HTTP/1.1\r\nHost: " + qwen + "\r\n\r\n" + strings.Repeat("y", 16<<20)
	go func() {
		_, _ = fmt.Fprintf(conn, "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: raw\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 413 ") || strings.Count(string(got), "HTTP/1.1 ") != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if n := r.provider.Received(); n > 0 {
		t.Errorf("a part of the body has become %d requests", n)
	}
}

func TestAnUploadThatTakesAllTheTimeEjectsNobody(t *testing.T) {
	r := newRig(t, strings.Replace(ejecting("1h"), "{attempts: 0}", "{attempts: 0}\n    timeouts: {request: 200ms}", 1))
	for range 3 {
		body, app := io.Pipe()
		go func() { _, _ = app.Write(make([]byte, 1<<20+1)) }()
		resp, err := r.client.Post("http://chat/v1/audio/transcriptions", "multipart/form-data; boundary=x", body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("got %d", resp.StatusCode)
		}
		_, _ = resp.Body.Close(), app.Close()
	}
	if got := r.exposed(); !strings.Contains(got, "remora_ejected_backends 0\n") {
		t.Error("the provider is left alone")
	}
}
