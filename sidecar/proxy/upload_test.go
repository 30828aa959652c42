package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// keyless is a provider without a key that a test serves by hand.
var keyless = providers + at("127.0.0.5", 8080, "mode: DISABLE")

// upstreamed has f serve the keyless provider: it reads the body of each request by itself.
func upstreamed(t *testing.T, f func(c *net.TCPConn, q *http.Request)) {
	t.Helper()
	remote(t, rawHost+":8080", func(c *net.TCPConn) {
		if q, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			f(c, q)
		}
	})
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

func TestAnUploadThatNobodyLooksIntoIsPassedOnAsItComes(t *testing.T) {
	r := newRig(t, keyless)
	type seen struct {
		length int64
		coding []string
		first  string
		rest   int
		header http.Header
	}
	half, all := make(chan seen, 1), make(chan seen, 1)
	upstreamed(t, func(c *net.TCPConn, q *http.Request) {
		s := seen{length: q.ContentLength, coding: q.TransferEncoding, header: q.Header}
		b := make([]byte, 4)
		_, _ = io.ReadFull(q.Body, b)
		s.first = string(b)
		half <- s
		rest, _ := io.ReadAll(q.Body)
		s.rest = len(rest)
		all <- s
		_, _ = io.WriteString(c, fine)
	})
	big := strings.Repeat("x", 1<<20)
	for _, target := range []string{"/v1/files", "http://127.0.0.5:8080/v1/files", "http://127.0.0.6:8080/v1/files"} {
		if strings.Contains(target, "127.0.0.6") {
			remoteIn(t, "127.0.0.6:8080", rawHost+":8080")
		}
		for _, chunked := range []bool{false, true} {
			w := r.dial()
			w.send("POST " + target + " HTTP/1.1\r\nHost: 127.0.0.5:8080\r\nContent-Encoding: gzip\r\nContent-Type: text/odd\r\n")
			if chunked {
				w.send("Transfer-Encoding: chunked\r\n\r\n4;a=b\r\nhalf\r\n")
			} else {
				w.send(fmt.Sprintf("Content-Length: %d\r\n\r\nhalf", 4+len(big)))
				w.send(big[:100<<10])
			}
			s := <-half // though the rest is still to come
			if s.first != "half" || s.header.Get("Content-Encoding") != "gzip" || s.header.Get("Content-Type") != "text/odd" ||
				chunked != (len(s.coding) == 1) || !chunked && s.length != int64(4+len(big)) {
				t.Errorf("%s: the provider got %+v", target, s)
			}
			if chunked {
				w.send(fmt.Sprintf("%x\r\n%s\r\n0\r\nX-Late: 1\r\n\r\n", len(big), big))
			} else {
				w.send(big[100<<10:])
			}
			if got, err := w.receive("POST"); err != nil || got.body != "fine" {
				t.Errorf("%s: %v %+v", target, err, got)
			}
			if s := <-all; s.rest != len(big) || s.header.Get("X-Late") != "" {
				t.Errorf("%s: the provider got %d bytes more, %v", target, s.rest, s.header)
			}
			w.send("GET http://foreign.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n") // the connection goes on
			if _, err := w.receive("GET"); err != nil {
				t.Errorf("%s: then %v", target, err)
			}
		}
	}
}

// remoteIn lets connections to one address reach another.
func remoteIn(t *testing.T, from, to string) {
	t.Helper()
	remote(t, from, func(c *net.TCPConn) {
		there, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer there.Close()
		go func() { _, _ = io.Copy(there, c) }()
		_, _ = io.Copy(c, there)
	})
}

func TestAnAnswerMayComeBeforeTheEndOfAnUpload(t *testing.T) {
	r := newRig(t, keyless)
	for name, refuse := range map[string]func(c *net.TCPConn){
		"and the connection is closed": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
		},
		"and nothing more is read": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
			_, _ = io.Copy(io.Discard, c) // only so that the end is seen
		},
	} {
		t.Run(name, func(t *testing.T) {
			upstreamed(t, func(c *net.TCPConn, q *http.Request) { refuse(c) })
			w := r.dial()
			w.send("POST /v1/files HTTP/1.1\r\nHost: 127.0.0.5\r\nContent-Length: 50000000\r\n\r\n")
			w.send(strings.Repeat("x", 1<<20))
			got, err := w.receive("POST") // the app has not sent all of it, and need not
			if err != nil || got.status != 413 || got.body != "big" {
				t.Errorf("%v %+v", err, got)
			}
		})
	}
}

func TestAnAppThatReadsOnlyWhenItHasSentAllGetsAnEarlyRefusal(t *testing.T) {
	r := newRig(t, keyless)
	upstreamed(t, func(c *net.TCPConn, q *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
	})
	w := r.dial()
	body := strings.Repeat("x", 20<<20)
	w.send("POST /v1/files HTTP/1.1\r\nHost: 127.0.0.5\r\n" + lengthOf(body) + "\r\n")
	w.send(body)
	if got, err := w.receive("POST"); err != nil || got.status != 413 || got.body != "big" {
		t.Errorf("%v %+v", err, got)
	}
}

func TestAnUploadAndItsAnswerPassAtTheSameTime(t *testing.T) {
	r := newRig(t, keyless)
	upstreamed(t, func(c *net.TCPConn, q *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(c, q.Body)
	})
	const pieces = 200
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	w := r.dial()
	w.send(fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: 127.0.0.5\r\nContent-Length: %d\r\n\r\n", pieces*len(piece)))
	sent := make(chan error, 1)
	go func() {
		for range pieces {
			if _, err := w.Write(piece); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if sendErr := <-sent; err != nil || n != int64(pieces*len(piece)) || sendErr != nil {
		t.Errorf("%d bytes came back, %v %v", n, err, sendErr)
	}
}

func TestAnAppThatLeavesEndsItsUpload(t *testing.T) {
	r := newRig(t, keyless)
	began, ended := make(chan struct{}), make(chan error, 1)
	upstreamed(t, func(c *net.TCPConn, q *http.Request) {
		close(began)
		_, err := io.Copy(io.Discard, q.Body)
		ended <- err
	})
	w := r.dial()
	w.send("POST /v1/files HTTP/1.1\r\nHost: 127.0.0.5\r\nContent-Length: 50000000\r\n\r\n" + strings.Repeat("x", 10000))
	<-began
	_ = w.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the provider takes it for complete")
		}
	case <-time.After(20 * time.Second):
		t.Error("the provider was not told")
	}
}

func TestAnUploadIsSentOnce(t *testing.T) {
	config := keyless + at("127.0.0.6", 9, "mode: DISABLE") + route("files", `
  - retries: {attempts: 3, retryOn: [connect-failure, rate-limited, 5xx, reset]}
    backendRefs: [{providerHost: 127.0.0.6, priority: 0}, {providerHost: 127.0.0.5, priority: 1}, {providerHost: vllm.models.svc.cluster.local, priority: 2}]`)
	r := newRig(t, config)
	body := strings.Repeat("x", 1<<20)
	answers := make(chan string, 3)
	answers <- fine
	answers <- "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy"
	answers <- ""
	upstreamed(t, func(c *net.TCPConn, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		if string(b) != body {
			t.Errorf("the provider got %d bytes", len(b))
		}
		_, _ = io.WriteString(c, <-answers)
	})
	for _, want := range []string{"fine", "busy", "UpstreamReset"} {
		if got := r.do("POST", "http://files/v1/files", body); !strings.Contains(got.body, want) {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
	if n := r.provider.Received(); n != 0 {
		t.Errorf("it was sent %d times more", n)
	}
}

func TestABrokenUploadIsNotTakenForComplete(t *testing.T) {
	r := newRig(t, keyless+route("small", `
  - limits: {requestBody: 100k}
    backendRefs: [{providerHost: 127.0.0.5}]`))
	ended := make(chan error, 1)
	upstreamed(t, func(c *net.TCPConn, q *http.Request) {
		_, err := io.Copy(io.Discard, q.Body)
		ended <- err
	})
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 70000, strings.Repeat("x", 70000))
	for _, c := range []struct {
		host, text string
		status     int
		code       routing.Code
	}{
		{"127.0.0.5", chunk + "zz\r\n", 400, routing.InvalidRequest},
		{"127.0.0.5", chunk + "5\r\nabcdefgh", 400, routing.InvalidRequest},
		{"127.0.0.5", chunk + "0\r\nContent-Length: 5\r\n\r\n", 400, routing.InvalidRequest},
		{"small", chunk + chunk, 413, routing.RequestTooLarge},
	} {
		w := r.dial()
		w.send("POST /v1/files HTTP/1.1\r\nHost: " + c.host + "\r\nTransfer-Encoding: chunked\r\n\r\n" + c.text)
		got, err := w.receive("POST")
		if err != nil {
			t.Fatal(err)
		}
		got.wantError(t, c.status, c.code)
		if err := <-ended; err == nil {
			t.Error("the provider takes it for complete")
		}
		if _, err := w.in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("the connection goes on: %v", err)
		}
	}
}

func TestUploadsLeaveNothing(t *testing.T) {
	r := newRig(t, keyless)
	upstreamed(t, func(c *net.TCPConn, q *http.Request) {
		_, _ = io.CopyN(io.Discard, q.Body, 1<<20)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
		_, _ = c.Read(make([]byte, 1))
	})
	// The app leaves while both are under way.
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		in, out := io.Pipe()
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://127.0.0.5/v1/files", in)
		go func() { _, _ = out.Write(make([]byte, 2<<20)) }()
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
		cancel()
		_ = resp.Body.Close()
		_ = in.Close()
	}
	// Shutdown, at the end of the test, waits for each of them.
}
