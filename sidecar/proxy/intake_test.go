package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// sized is a prompt of so many bytes.
func sized(n int) string {
	const begin, end = `{"messages":[{"role":"user","content":"`, `"}]}`
	return begin + strings.Repeat("x", n-len(begin)-len(end)) + end
}

func chunked(body string) string {
	return fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
}

func TestABodyMayBeAsLargeAsItsRuleSays(t *testing.T) {
	r := newRig(t, rawConfig("")+route("two", `
  - name: little
    matches: [{headers: {size: {exact: little}}}]
    limits: {requestBody: 20k}
    backendRefs: [{providerHost: 127.0.0.5}]
  - name: much
    limits: {requestBody: 70Mi}
    backendRefs: [{providerHost: 127.0.0.5}]`)+route("one", `
  - limits: {requestBody: 1Ki}
    backendRefs: [{providerHost: 127.0.0.5}]`))
	serve(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true))
	const little, much = 20000, 70 << 20
	for _, c := range []struct {
		host, header string
		size         int
		mentions     string // empty: it is taken
	}{
		{"two", "size: little\r\n", little, ""},
		{"two", "size: little\r\n", little + 1, "rule little of LLMRoute default/two"},
		{"two", "", little + 1, ""},
		{"two", "", much, ""},
		{"two", "", much + 1, "the largest limits.requestBody"},
		{"one", "", 1024, ""},
		{"one", "", 1025, "limits.requestBody of a rule of LLMRoute default/one"},
		{"127.0.0.5", "", routing.DefaultMaxBody, ""},
		{"127.0.0.5", "", routing.DefaultMaxBody + 1, "the default"},
	} {
		body := sized(c.size)
		for _, framed := range []string{lengthOf(body) + "\r\n" + body, chunked(body)} {
			w := r.dial()
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(w, "POST / HTTP/1.1\r\nHost: "+c.host+"\r\n"+c.header+framed)
			}()
			got, err := w.receive("POST")
			switch {
			case err != nil:
				t.Errorf("%s %d: %v", c.host, c.size, err)
			case c.mentions == "" && got.status != 200:
				t.Errorf("%s %d: %+v", c.host, c.size, got)
			case c.mentions != "":
				got.wantError(t, 413, routing.RequestTooLarge, c.mentions)
			}
			_ = w.Close()
			<-sent
		}
	}
}

func TestTheLimitIsToldBeforeTheBodyIsSent(t *testing.T) {
	r := newRig(t, keyless+route("one", `
  - limits: {requestBody: 1Ki}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	ask := func(head string) string {
		w := r.dial()
		w.send(head)
		line, err := w.in.ReadString('\n')
		if err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		return strings.TrimSpace(line)
	}
	for head, want := range map[string]string{
		"POST / HTTP/1.1\r\nHost: one\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n":                            "HTTP/1.1 413 Request Entity Too Large",
		"POST / HTTP/1.1\r\nHost: one\r\nExpect: 100-continue\r\nContent-Length: 1024\r\n\r\n":                            "HTTP/1.1 100 Continue",
		"POST / HTTP/1.1\r\nHost: one\r\nExpect: 100-Continue\r\nContent-Length: 1024\r\n\r\n":                            "HTTP/1.1 100 Continue",
		"POST / HTTP/1.1\r\nHost: one\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n":                      "HTTP/1.1 100 Continue",
		"POST http://foreign.example.com/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n": "HTTP/1.1 100 Continue",
		"POST / HTTP/1.1\r\nHost: one\r\nContent-Length: 1025\r\n\r\n" + strings.Repeat(" ", 1025):                        "HTTP/1.1 413 Request Entity Too Large",
		"POST / HTTP/1.0\r\nHost: one\r\nExpect: 100-continue\r\n" + lengthOf(prompt) + "\r\n" + prompt:                   "HTTP/1.1 200 OK",
	} {
		if got := ask(head); got != want {
			t.Errorf("%q is answered %q, want %q", head, got, want)
		}
	}
}

func TestTrailersAreDropped(t *testing.T) {
	r := newRig(t, providers+route("vip", `
  - matches: [{headers: {user-type: {exact: subscriber}}}]
    backendRefs: [{providerHost: api.moonshot.cn}]
  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	w := r.dial()
	for range 2 { // the second request is on the same connection
		w.send("POST / HTTP/1.1\r\nHost: vip\r\nX-Kept: 1\r\nTrailer: user-type\r\nTransfer-Encoding: chunked\r\n\r\n" +
			fmt.Sprintf("%x\r\n%s\r\n0\r\nUser-Type: subscriber\r\nX-Api-Key: mine\r\nX-Kept: 2\r\n\r\n", len(prompt), prompt))
		if got, err := w.receive("POST"); err != nil || got.status != 200 {
			t.Fatalf("%v %+v", err, got)
		}
		q := r.last()
		if v := q.Header.Values("X-Kept"); q.Host != qwen || len(v) != 1 || v[0] != "1" || strings.Contains(fmt.Sprint(q.RawHeader), "mine") || q.Header.Get("User-Type") != "" {
			t.Errorf("%s got %q", q.Host, q.RawHeader)
		}
	}
}

func TestTenThousandTinyChunksAreOneBody(t *testing.T) {
	r := newRig(t, providers)
	body := sized(10000)
	var b strings.Builder
	for i := range body {
		fmt.Fprintf(&b, "1;n=%d\r\n%s\r\n", i, body[i:i+1])
	}
	w := r.dial()
	w.send(post("/", "Transfer-Encoding: chunked\r\n", b.String()+"0\r\n\r\n") + last)
	if got := fmt.Sprint(w.statuses()); got != "[200 200]" {
		t.Errorf("answered %s", got)
	}
	if q := r.provider.Requests()[0]; len(q.Body) != len(body)+len(`"model":"qwen-1.8b-chat",`) || q.Header.Get("Content-Length") == "" {
		t.Errorf("the provider got %d bytes, %v", len(q.Body), q.Header)
	}
}

func TestABodyThatEndsOneByteEarlyIsNotSentOn(t *testing.T) {
	r := newRig(t, providers)
	for _, c := range []string{
		post("/", lengthOf(prompt), prompt[:len(prompt)-1]),
		post("/", fmt.Sprintf("Content-Length: %d\r\n", 100<<10), sized(100 << 10)[:100<<10-1]),
		post("/", "", "")[:len(post("/", "", ""))-2] + chunked(prompt)[:len(chunked(prompt))-1],
	} {
		w := r.dial()
		w.send(c)
		if err := w.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := w.receive("POST"); err == nil && got.status == 200 || errors.Is(err, io.ErrNoProgress) {
			t.Errorf("%.60q: %v %+v", c, err, got)
		}
	}
	if n := r.provider.Received(); n != 0 {
		t.Errorf("the provider got %d requests", n)
	}
}

func TestBombsOfHeadersAreRefused(t *testing.T) {
	r := newRig(t, providers)
	for name, header := range map[string]string{
		"one long":         "X-A: " + strings.Repeat("a", 100<<10) + "\r\n",
		"many":             strings.Repeat("X-A: a\r\n", 10000),
		"a long name":      strings.Repeat("a", 100<<10) + ": a\r\n",
		"one that folds":   "X-A: a\r\n" + strings.Repeat(" a\r\n", 20000),
		"a long target":    "",
		"without an end":   "X-A: " + strings.Repeat("a", 1<<20),
		"a long trailer":   "",
		"many trailers":    "",
		"a long size":      "",
		"a long extension": "",
	} {
		w := r.dial()
		text := post("/", header+lengthOf(prompt), prompt)
		switch name {
		case "a long target":
			text = post("/"+strings.Repeat("a", 100<<10), lengthOf(prompt), prompt)
		case "a long trailer":
			text = post("/", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\nX-A: "+strings.Repeat("a", 100<<10)+"\r\n\r\n")
		case "many trailers":
			text = post("/", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n"+strings.Repeat("X-A: a\r\n", 10000)+"\r\n")
		case "a long size":
			text = post("/", "Transfer-Encoding: chunked\r\n", strings.Repeat("0", 100<<10)+"2\r\n{}\r\n0\r\n\r\n")
		case "a long extension":
			text = post("/", "Transfer-Encoding: chunked\r\n", "2;"+strings.Repeat("a", 1<<20)+"\r\n{}\r\n0\r\n\r\n")
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.WriteString(w, text)
		}()
		got, err := w.receive("POST")
		if err != nil || got.status != 400 && got.status != 200 {
			t.Errorf("%s: %v %+v", name, err, got)
		}
		if got.status == 200 && name != "a long extension" {
			t.Errorf("%s: it passes", name)
		}
		_ = w.Close()
		<-sent
	}
}

func TestHTTP10MayUseChunksOnlyAsTheServerReadsThem(t *testing.T) {
	r := newRig(t, providers)
	smuggled := post("/v1/chat/completions", lengthOf(prompt)+"X-Smuggled: 1\r\n", prompt)
	for _, keep := range []string{"", "Connection: keep-alive\r\n"} {
		w := r.dial()
		w.send("POST / HTTP/1.0\r\nHost: " + qwen + "\r\n" + keep + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(prompt), prompt))
		if keep == "" {
			w.send(smuggled)
		} else {
			w.send(last)
		}
		w.statuses()
	}
	for _, q := range r.provider.Requests() {
		if q.Header.Get("X-Smuggled") != "" {
			t.Error("what follows the last request of a connection was served")
		}
	}
}
