package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

const rawHost = "127.0.0.5"

// rawConfig is a provider that is written by hand; rule is what its only rule has beside its backend.
func rawConfig(rule string) string {
	return providers + `
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: raw}
spec:
  host: 127.0.0.5
  port: 8080
  tls: {mode: DISABLE, allowInsecureKey: true}
  configs: {defaultConfig: {openAIConfig: {apiKey: sk-raw-0123456789}}}
` + route("raw", `
  - backendRefs: [{providerHost: 127.0.0.5}]`+rule)
}

// handmade is a provider whose every byte a test decides.
type handmade struct {
	mu   sync.Mutex
	open []net.Conn
	got  []*http.Request
	text []string // bodies of got
}

// serve has answer write the n-th answer, counted from 0, after its request has been read. The connection
// is closed when answer returns false.
func serve(t *testing.T, answer func(n int, c *net.TCPConn, q *http.Request) bool) *handmade {
	t.Helper()
	l, err := net.Listen("tcp", rawHost+":8080")
	if err != nil {
		t.Fatal(err)
	}
	h := &handmade{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.open = append(h.open, c)
			h.mu.Unlock()
			running.Go(func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					q, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					b, err := io.ReadAll(q.Body)
					if err != nil {
						return
					}
					h.mu.Lock()
					n := len(h.got)
					h.got, h.text = append(h.got, q), append(h.text, string(b))
					h.mu.Unlock()
					if !answer(n, c.(*net.TCPConn), q) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		h.mu.Lock()
		for _, c := range h.open {
			_ = c.Close()
		}
		h.mu.Unlock()
		running.Wait()
	})
	return h
}

func (h *handmade) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.got)
}

// always answers every request with the same text.
func always(text string, keep bool) func(int, *net.TCPConn, *http.Request) bool {
	return func(_ int, c *net.TCPConn, _ *http.Request) bool {
		_, _ = io.WriteString(c, text)
		return keep
	}
}

func TestAnswersOfEveryFormArriveWhole(t *testing.T) {
	long := strings.Repeat("x", 20<<10)
	for name, c := range map[string]struct {
		answer string
		keep   bool
		status int
		body   string
	}{
		"a length":                   {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok"},
		"no reason":                  {"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", true, 200, "ok"},
		"no space after the status":  {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok"},
		"an odd status":              {"HTTP/1.1 299 Odd One\r\nContent-Length: 2\r\n\r\nok", true, 299, "ok"},
		"interim answers":            {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok"},
		"to the end":                 {"HTTP/1.1 200 OK\r\n\r\nok", false, 200, "ok"},
		"HTTP/1.0":                   {"HTTP/1.0 200 OK\r\n\r\nok", false, 200, "ok"},
		"HTTP/1.0 with a length":     {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok"},
		"HTTP/1.0 kept":              {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok"},
		"chunks":                     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", true, 200, "ok"},
		"chunks with extensions":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n001;a=b \r\no\r\n1 \r\nk\r\n0;c\r\n\r\n", true, 200, "ok"},
		"chunks and trailers":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n", true, 200, "ok"},
		"chunks and a length":        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true, 200, "ok"},
		"close in odd case":          {"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok"},
		"more than it says":          {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", true, 200, "ok"},
		"nothing":                    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, 200, ""},
		"204":                        {"HTTP/1.1 204 No Content\r\n\r\n", true, 204, ""},
		"204 that closes":            {"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", false, 204, ""},
		"304":                        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", true, 304, ""},
		"headers of 20 KiB":          {"HTTP/1.1 200 OK\r\nX-Long: " + long + "\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok"},
		"20 KiB, chunks, headers":    {"HTTP/1.1 200 OK\r\nX-Long: " + long + "\r\nTransfer-Encoding: chunked\r\n\r\n5000\r\n" + long + "\r\n0\r\n\r\n", true, 200, long},
		"a redirect":                 {"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.5:8080/elsewhere\r\nContent-Length: 0\r\n\r\n", true, 307, ""},
		"a header that is nominated": {"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nConnection: close\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			h := serve(t, always(c.answer, c.keep))
			w := r.dial()
			for i := range 3 {
				w.send("POST / HTTP/1.1\r\nHost: raw\r\n" + lengthOf(prompt) + "\r\n" + prompt)
				got, err := w.receive("POST")
				if err != nil || got.status != c.status || got.body != c.body {
					t.Fatalf("%d: got %d %.80q %v", i, got.status, got.body, err)
				}
				for _, hop := range []string{"X-Hop", "X-T", "X-U", "Trailer", "Connection"} {
					if v := got.header.Get(hop); v != "" {
						t.Errorf("the app got %s: %s", hop, v)
					}
				}
			}
			if n := h.count(); n != 3 {
				t.Errorf("the provider got %d requests, want 3", n)
			}
		})
	}
}

func TestBrokenAnswersAreNotTakenForWhole(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		code   routing.Code // empty: the answer begins, and does not end in order
	}{
		"101":                     {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", routing.UpstreamInvalid},
		"interim without end":     {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100), routing.UpstreamInvalid},
		"not HTTP":                {"SSH-2.0-OpenSSH\r\n\r\n", routing.UpstreamInvalid},
		"another coding":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", routing.UpstreamInvalid},
		"two lengths":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", routing.UpstreamInvalid},
		"a key in a broken head":  {"HTTP/1.1 200 OK\r\nX: sk-raw-0123456789\x01\r\n\r\n", routing.UpstreamInvalid},
		"a key in a broken line":  {"HTTP/1.1 200 OK\r\nsk-raw-0123456789\r\n\r\n", routing.UpstreamInvalid},
		"headers of 100 KiB":      {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", routing.UpstreamInvalid},
		"half a head":             {"HTTP/1.1 200 OK\r\nX", ""},
		"less than it says":       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", ""},
		"a chunk of no size":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n\r\n", ""},
		"a chunk of broken size":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n+1\r\nx\r\n0\r\n\r\n", ""},
		"a chunk of huge size":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nffffffffffffffff\r\nx", ""},
		"a chunk longer than so":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", ""},
		"no last chunk":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", ""},
		"no end of the trailer":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n", ""},
		"a trailer without bound": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + strings.Repeat("X: 1\r\n", 50000) + "\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			serve(t, always(c.answer, false))
			got, err := r.try("POST", "http://raw", prompt)
			switch {
			case c.code != "":
				if err != nil {
					t.Fatal(err)
				}
				got.wantError(t, 502, c.code)
			case err == nil && got.status == 200:
				t.Errorf("got %q without an error", got.body)
			}
		})
	}
}

func TestHeadersOfAnAnswerArriveAsTheyWere(t *testing.T) {
	r := newRig(t, rawConfig(""))
	serve(t, func(n int, c *net.TCPConn, _ *http.Request) bool {
		if n == 0 { // thrown away: nothing of it may be left in the next
			_, _ = io.WriteString(c, "HTTP/1.1 503 No\r\nRetry-After: 0\r\nX-Old: 1\r\nSet-Cookie: old=1\r\nContent-Type: text/x-old\r\nContent-Length: 0\r\n\r\n")
			return true
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 Fine\r\nDate: then\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: a=2\r\nSet-Cookie: b=3\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 2\r\n\r\nok")
		return true
	})
	h := r.do("POST", "http://raw", prompt).header
	want := http.Header{"Date": {"then"}, "Set-Cookie": {"a=1; Path=/", "a=2", "b=3"}, "X-Two": {"1", "2"}, "Content-Length": {"2"}}
	if fmt.Sprint(h) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", h, want)
	}
}

func TestAHEADOfAForeignHostHasNoBody(t *testing.T) {
	r := newRig(t, providers)
	answers := []string{"Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n", ""}
	serve(t, func(n int, c *net.TCPConn, _ *http.Request) bool {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%sX-N: 1\r\n\r\n", answers[n])
		return true
	})
	w := r.dial()
	for i, answer := range answers {
		w.send("HEAD http://127.0.0.5:8080/ HTTP/1.1\r\nHost: x\r\n\r\n")
		got, err := w.receive("HEAD")
		if err != nil || got.status != 200 || got.header.Get("X-N") != "1" {
			t.Errorf("%q: %v %+v", answer, err, got)
		}
		if i == 0 && got.header.Get("Content-Length") != "100" {
			t.Errorf("the length is lost: %v", got.header)
		}
	}
}

func TestAnEarlyRefusalByTheProviderReachesTheApp(t *testing.T) {
	r := newRig(t, rawConfig(""))
	l, err := net.Listen("tcp", rawHost+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// It reads a little, answers, and resets the rest.
			_, _ = c.Read(make([]byte, 1000))
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
			_ = c.Close()
		}
	}()
	big := `{"messages":"` + strings.Repeat("x", 20<<20) + `"}`
	if got := r.do("POST", "http://raw", big); got.status != 413 || got.body != "big" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestAProviderThatTakesInNoMoreIsGivenUp(t *testing.T) {
	r := newRig(t, rawConfig("\n    timeouts: {firstToken: 200ms}\n    retries: {attempts: 0}"))
	l, err := net.Listen("tcp", rawHost+":8080") // the kernel accepts, nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	big := `{"messages":"` + strings.Repeat("x", 30<<20) + `"}`
	r.do("POST", "http://raw", big).wantError(t, 504, routing.FirstTokenTimeout)
}

func TestAHugeAnswerPassesInLittleMemory(t *testing.T) {
	r := newRig(t, rawConfig(""))
	const size = 200 << 20
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		for range size / len(piece) {
			if _, err := c.Write(piece); err != nil {
				return false
			}
		}
		return true
	})
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	resp, err := r.open(t.Context(), "POST", "http://raw", prompt)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// The app does not read yet: the provider has to wait.
	if _, err := io.CopyN(io.Discard, resp.Body, size/2); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&during)
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d MiB are held", grown>>20)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size-size/2 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	r := newRig(t, rawConfig(""))
	paused := make(chan struct{})
	serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		event := []byte("data: " + strings.Repeat("x", 10000) + "\n\n")
		for {
			_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := c.Write(event); err != nil {
				close(paused)
				return false
			}
		}
	})
	resp, err := r.open(t.Context(), "POST", "http://raw", `{"stream":true}`)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-paused
	for range 20 {
		if got := r.do("POST", "http://"+qwen, prompt); got.status != 200 {
			t.Fatalf("another request: %d %s", got.status, got.body)
		}
	}
}
