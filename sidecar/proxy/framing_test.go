package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// wire is a connection of an app that writes its requests by hand.
type wire struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (r *rig) dial() *wire {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &wire{conn, r.t, bufio.NewReader(conn)}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatalf("sending: %v", err)
	}
}

// receive reads one answer.
func (w *wire) receive(method string) (reply, error) {
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		return reply{}, err
	}
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

// statuses reads answers until the proxy closes the connection, which must be an orderly close.
func (w *wire) statuses() (all []int) {
	w.t.Helper()
	for {
		got, err := w.receive("POST")
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return all
		case err != nil:
			w.t.Errorf("after %v: %v", all, err)
			return all
		}
		all = append(all, got.status)
	}
}

// post is a request by hand.
func post(target, header, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", target, qwen, header, body)
}

func lengthOf(body string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(body)) }

// last asks for the end of the connection, so that a test sees the end of what came before it.
var last = post("/", lengthOf(prompt)+"Connection: close\r\nX-Last: 1\r\n", prompt)

func TestNothingInARequestsBodyBecomesARequest(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - backendRefs: [{providerHost: missing.example.com}]`))
	smuggled := post("/v1/chat/completions", lengthOf(prompt)+"X-Smuggled: 1\r\n", prompt)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(prompt), prompt)
	wrapped := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled)
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"405, body unread":            {"PUT / HTTP/1.1\r\nHost: " + qwen + "\r\n" + lengthOf(smuggled) + "\r\n" + smuggled + last, "405,200"},
		"404, body unread":            {post("/v1/files", lengthOf(smuggled), smuggled) + last, "404,200"},
		"404, chunked":                {post("/v1/files", "Transfer-Encoding: chunked\r\n", wrapped) + last, "404,200"},
		"400, body unread":            {post("/x#y", lengthOf(smuggled), smuggled) + last, "400"},
		"421, body unread":            {"POST / HTTP/1.1\r\nHost: nobody\r\n" + lengthOf(smuggled) + "\r\n" + smuggled + last, "421"},
		"503, body unread":            {"POST / HTTP/1.1\r\nHost: missing.example.com\r\n" + lengthOf(smuggled) + "\r\n" + smuggled + last, "503"},
		"length and chunked":          {post("/", lengthOf(chunk+"0\r\n\r\n")+"Transfer-Encoding: chunked\r\n", chunk+"0\r\n\r\n"+smuggled), "400"},
		"chunked and length":          {post("/", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", chunk+"0\r\n\r\n"+smuggled), "400"},
		"chunked, identity":           {post("/", "Transfer-Encoding: chunked, identity\r\n", chunk+"0\r\n\r\n"+smuggled), "400"},
		"identity, chunked":           {post("/", "Transfer-Encoding: identity, chunked\r\n", chunk+"0\r\n\r\n"+smuggled), "400"},
		"identity":                    {post("/", "Transfer-Encoding: identity\r\n", smuggled), "400"},
		"xchunked":                    {post("/", "Transfer-Encoding: xchunked\r\n", chunk+"0\r\n\r\n"+smuggled), "400"},
		"chunked twice":               {post("/", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunk+"0\r\n\r\n"+smuggled), "400"},
		"a space before the colon":    {post("/", "Transfer-Encoding : chunked\r\n", chunk+"0\r\n\r\n"+smuggled), "400"},
		"a folded coding":             {post("/", "Transfer-Encoding:\r\n chunked\r\n", chunk+"0\r\n\r\n") + last, "200,200"},
		"two lengths":                 {post("/", "Content-Length: 0\r\n"+lengthOf(smuggled), smuggled), "400"},
		"two equal lengths":           {post("/", lengthOf(smuggled)+lengthOf(smuggled), smuggled), "400"},
		"a list of lengths":           {post("/", "Content-Length: 0, 0\r\n", smuggled), "400"},
		"a signed length":             {post("/", "Content-Length: +5\r\n", smuggled), "400"},
		"a negative length":           {post("/", "Content-Length: -5\r\n", smuggled), "400"},
		"a huge length":               {post("/", "Content-Length: 99999999999999999999\r\n", smuggled), "400"},
		"a hexadecimal length":        {post("/", "Content-Length: 0x5\r\n", smuggled), "400"},
		"chunk extensions":            {post("/", "Transfer-Encoding: chunked\r\n", strings.Replace(chunk, "\r\n", ";a=b;c=\"d\"\r\n", 1)+"0;e\r\n\r\n") + last, "200,200"},
		"a bare LF after a size":      {post("/", "Transfer-Encoding: chunked\r\n", strings.Replace(chunk, "\r\n", "\n", 1)+"0\r\n\r\n"+smuggled), "400"},
		"a bare LF in an extension":   {post("/", "Transfer-Encoding: chunked\r\n", "5;a\n"+chunk+"0\r\n\r\n"+smuggled), "400"},
		"a chunk longer than it says": {post("/", "Transfer-Encoding: chunked\r\n", "1\r\n{}"+smuggled), "400"},
		"a chunk of negative size":    {post("/", "Transfer-Encoding: chunked\r\n", "-1\r\n\r\n"+smuggled), "400"},
		"a chunk of huge size":        {post("/", "Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n\r\n"+smuggled), "400"},
		"a size that is none":         {post("/", "Transfer-Encoding: chunked\r\n", "zz\r\n\r\n"+smuggled), "400"},
		"trailers":                    {post("/", "Transfer-Encoding: chunked\r\n", chunk+"0\r\nX-Late: 1\r\n\r\n") + last, "200,200"},
		"a forbidden trailer":         {post("/", "Transfer-Encoding: chunked\r\n", chunk+"0\r\nContent-Length: 9\r\n\r\n"+smuggled), "400"},
		"a NUL in a header":           {post("/", "X-A: a\x00b\r\n"+lengthOf(smuggled), smuggled), "400"},
		"a CR in a header":            {post("/", "X-A: a\rX-B: b\r\n"+lengthOf(smuggled), smuggled), "400"},
		"a header without a name":     {post("/", ": a\r\n"+lengthOf(smuggled), smuggled), "400"},
		"a header without a colon":    {post("/", "nothing\r\n"+lengthOf(smuggled), smuggled), "400"},
		"a space in a header's name":  {post("/", "X A: 1\r\n"+lengthOf(prompt), prompt) + last, "400,200"},
		"GET with a body":             {"GET /v1/models HTTP/1.1\r\nHost: " + qwen + "\r\n" + lengthOf(smuggled) + "\r\n" + smuggled + last, "200,200"},
		"CONNECT":                     {"CONNECT " + qwen + ":443 HTTP/1.1\r\nHost: " + qwen + "\r\n\r\n" + last, "405,200"},
	} {
		t.Run(name, func(t *testing.T) {
			r.provider.Reset()
			w := r.dial()
			w.t = t
			w.send(c.text)
			got := strings.Trim(strings.ReplaceAll(fmt.Sprint(w.statuses()), " ", ","), "[]")
			if got != c.want {
				t.Errorf("answered %s, want %s", got, c.want)
			}
			for _, q := range r.provider.Requests() {
				if q.Header.Get("X-Smuggled") != "" {
					t.Errorf("the provider got a request out of a body")
				}
				if q.Header.Get("X-Late") != "" {
					t.Errorf("the provider got a trailer as a header")
				}
			}
		})
	}
}

func TestTheFormOfTheTargetDoesNotMatter(t *testing.T) {
	r := newRig(t, providers)
	for _, c := range []struct {
		line, host string
		status     int
		code       routing.Code
	}{
		{"POST http://" + qwen, "elsewhere.example.com", 200, ""},
		{"POST http://" + qwen + "/", "elsewhere.example.com", 200, ""},
		{"POST HTTP://" + strings.ToUpper(qwen) + ":80/v1/chat/completions", "x", 200, ""},
		{"POST http://" + qwen + "?a=b", "x", 200, ""},
		{"POST /", strings.ToUpper(qwen) + ".:80", 200, ""},
		{"POST /v1/chat/completions?u=http://evil.example.com/", qwen, 200, ""},
		{"POST /?u=a://b:c@d", qwen, 200, ""},
		{"POST //evil.example.com/v1/chat/completions", qwen, 404, routing.OperationNotFound},
		{"POST /v1/chat/completions/..", qwen, 404, routing.OperationNotFound},
		{"OPTIONS *", qwen, 400, routing.InvalidRequest},
		{"OPTIONS /v1/chat/completions", qwen, 405, routing.MethodNotAllowed},
		{"POST http:///x", qwen, 400, routing.InvalidRequest},
		{"POST http://?x", qwen, 400, routing.InvalidRequest},
		{"POST ftp://" + qwen + "/", qwen, 400, routing.InvalidRequest},
		{"POST " + qwen + "/", qwen, 400, routing.InvalidRequest},
		{"POST http://user:pass@" + qwen + "/", qwen, 400, routing.InvalidRequest},
		{"POST http://" + qwen + ":99999/", qwen, 400, routing.InvalidRequest},
		{"POST http://" + qwen + ":80:80/", qwen, 400, routing.InvalidRequest},
		{"POST http://" + qwen + "\\@evil/", qwen, 400, routing.InvalidRequest},
		{"POST http://dashscope%2ealiyuncs.com/", qwen, 400, routing.InvalidRequest},
		{"POST http://[::1/", qwen, 400, routing.InvalidRequest},
		{"POST http://[x]/", qwen, 400, routing.InvalidRequest},
		{"POST /", "", 400, routing.InvalidRequest},
		{"POST /", "user@" + qwen, 400, routing.InvalidRequest},
		{"POST /", qwen + "/x", 400, routing.InvalidRequest},
		{"POST /", qwen + ",x", 400, routing.InvalidRequest},
		{"POST /", "[::1]:80", 421, routing.MisdirectedRequest},
		{"POST /", strings.Repeat("a", 300), 421, routing.MisdirectedRequest},
		{"POST http://[::1]:9/", qwen, 502, routing.ConnectFailure},
		{"POST http://[::1]/", qwen, 502, routing.ConnectFailure},
		{"POST https://foreign.example.com/", qwen, 400, routing.InvalidRequest},
	} {
		w := r.dial()
		w.send(c.line + " HTTP/1.1\r\nHost: " + c.host + "\r\n" + lengthOf(prompt) + "\r\n" + prompt)
		got, err := w.receive("POST")
		switch {
		case err != nil:
			t.Errorf("%s, Host %s: %v", c.line, c.host, err)
		case c.code == "":
			if q := r.last(); got.status != 200 || q.Host != qwen || q.Path != "/compatible-mode/v1/chat/completions" {
				t.Errorf("%s, Host %s: %d %s", c.line, c.host, got.status, got.body)
			}
		default:
			t.Run(c.line, func(t *testing.T) { got.wantError(t, c.status, c.code) })
		}
	}
}

func TestAKeptConnectionServesAnotherHostNext(t *testing.T) {
	r := newRig(t, providers)
	w := r.dial()
	for _, host := range []string{qwen, moonshot, vllm, qwen} {
		w.send("POST http://" + host + "/ HTTP/1.1\r\nHost: x\r\n" + lengthOf(prompt) + "\r\n" + prompt)
		if got, err := w.receive("POST"); err != nil || got.status != 200 && host != vllm || r.last().Host != host {
			t.Errorf("%s: %v %+v", host, err, got)
		}
	}
}

func TestAConnectionIsClosedWhereTheAppAsksForIt(t *testing.T) {
	r := newRig(t, providers)
	for _, value := range []string{"close", "Close", "CLOSE", "keep-alive, Close"} {
		w := r.dial()
		w.send(post("/", lengthOf(prompt)+"Connection: "+value+"\r\n", prompt))
		if got := w.statuses(); fmt.Sprint(got) != "[200]" {
			t.Errorf("%s: %v", value, got)
		}
	}
}

func TestWhatAConnectionHeaderNamesGoesNoFurther(t *testing.T) {
	r := newRig(t, providers)
	w := r.dial()
	w.send("POST http://" + vllm + "/ HTTP/1.1\r\nHost: x\r\nConnection: x-one\r\nConnection: X-TWO, keep-alive\r\nConnection: close\r\n" +
		"X-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nProxy-Authorization: p\r\n" +
		lengthOf(prompt) + "\r\n" + prompt)
	if _, err := w.receive("POST"); err != nil {
		t.Fatal(err)
	}
	h := r.last().Header
	for _, name := range []string{"Connection", "X-One", "X-Two", "Te", "Keep-Alive", "Proxy-Connection", "Upgrade", "Proxy-Authorization"} {
		if v, there := h[name]; there {
			t.Errorf("%s went out: %q", name, v)
		}
	}
	if h.Get("X-Three") != "3" {
		t.Errorf("X-Three is missing: %v", h)
	}
}

func TestTheAppsCredentialsAreRemovedHoweverTheyAreWritten(t *testing.T) {
	r := newRig(t, providers)
	for _, header := range []string{
		"authorization: Bearer mine", "AUTHORIZATION: Bearer mine", "Authorization: Bearer mine\r\nAuthorization: Basic mine",
		"aPI-kEY: mine", "x-api-key: mine", "X-Goog-Api-Key: mine", "cookie: mine=1", "COOKIE: mine=1\r\nCookie: mine=2",
		"Connection: authorization\r\nAuthorization: mine", "Authorization:\r\n mine",
	} {
		w := r.dial()
		w.send(post("/", header+"\r\n"+lengthOf(prompt), prompt))
		if got, err := w.receive("POST"); err != nil || got.status != 200 {
			t.Errorf("%q: %v %+v", header, err, got)
			continue
		}
		keys := 0
		for _, line := range r.last().RawHeader {
			if strings.Contains(line, "mine") {
				t.Errorf("%q went out as %q", header, line)
			}
			if line == "Authorization: Bearer sk-qwen-0123456789" {
				keys++
			}
		}
		if keys != 1 {
			t.Errorf("%q: the key went out %d times", header, keys)
		}
	}
}

// Some servers take the method and the path from headers, which the table of operations does not see.
func TestHeadersThatMeanAnotherMethodOrPathStayBehindWhereAKeyIsSent(t *testing.T) {
	r := newRig(t, providers)
	for host, want := range map[string]int{qwen: 0, vllm: 5} {
		w := r.dial()
		w.send("POST http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\nx-http-method-override: other\r\nX-HTTP-Method: other\r\nX-Method-Override: other\r\n" +
			"X-Original-URL: other\r\nX-REWRITE-URL: other\r\n" + lengthOf(prompt) + "\r\n" + prompt)
		if _, err := w.receive("POST"); err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if all := strings.Join(r.last().RawHeader, "\n"); strings.Count(all, ": other") != want {
			t.Errorf("%s: want %d of them in\n%s", host, want, all)
		}
	}
}

func TestARefusalArrivesThoughTheAppIsStillSending(t *testing.T) {
	r := newRig(t, providers)
	// More than what fits into buffers: the app reads the answer only when it has sent everything.
	body := strings.Repeat(" ", 8<<20)
	for name, head := range map[string]string{
		"421": "POST / HTTP/1.1\r\nHost: nobody\r\n" + lengthOf(body) + "\r\n",
		"400": "POST / HTTP/1.1\r\nHost: " + qwen + "\r\nX-A: " + strings.Repeat("a", 20<<10) + "\r\n" + lengthOf(body) + "\r\n",
		"413": "POST / HTTP/1.1\r\nHost: " + qwen + "\r\nContent-Length: 99999999\r\n\r\n",
	} {
		w := r.dial()
		w.send(head)
		w.send(body)
		got, err := w.receive("POST")
		if err != nil || fmt.Sprint(got.status) != name {
			t.Errorf("%s: %d %v", name, got.status, err)
		}
	}
}

func TestATooLargeBodyIsRefusedBeforeItIsSent(t *testing.T) {
	r := newRig(t, providers)
	w := r.dial()
	w.send(post("/", "Content-Length: 99999999\r\nExpect: 100-continue\r\n", ""))
	got, err := w.receive("POST")
	if err != nil {
		t.Fatal(err)
	}
	got.wantError(t, 413, routing.RequestTooLarge)
	w = r.dial()
	w.send(post("/", lengthOf(prompt)+"Expect: 100-continue\r\n", ""))
	if line, err := w.in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	_, _ = w.in.ReadString('\n')
	w.send(prompt)
	if got, err := w.receive("POST"); err != nil || got.status != 200 || r.last().Header.Get("Expect") != "" {
		t.Errorf("%v %+v", err, got)
	}
}

func TestAnAppThatLeavesInTheMiddleOfItsRequestCostsNothing(t *testing.T) {
	r := newRig(t, providers)
	for name, text := range map[string]string{
		"nothing":        "",
		"half a line":    "POST / HT",
		"half a head":    "POST / HTTP/1.1\r\nHost: " + qwen + "\r\nX",
		"half a body":    post("/", "Content-Length: 10000000\r\n", strings.Repeat(" ", 5000000)),
		"half a short":   post("/", "Content-Length: 500\r\n", "{"),
		"half a chunk":   post("/", "Transfer-Encoding: chunked\r\n", "5\r\n{"),
		"half a foreign": "POST http://foreign.example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat(" ", 5000000),
	} {
		w := r.dial()
		w.send(text)
		if err := w.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, w.in); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
	}
	for _, q := range r.provider.Requests() {
		if q.Host != "foreign.example.com" || !q.Aborted {
			t.Errorf("the provider got %+v", q.Host)
		}
	}
}

func TestAnHTTP10AppGetsNoChunks(t *testing.T) {
	r := newRig(t, providers)
	stream := `{"stream":true,"messages":[{"role":"user","content":"one two three"}]}`
	for _, keep := range []string{"", "Connection: keep-alive\r\n"} {
		w := r.dial()
		w.send("POST / HTTP/1.0\r\nHost: " + qwen + "\r\n" + keep + lengthOf(stream) + "\r\n" + stream)
		all, err := io.ReadAll(w.in)
		if err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(string(all), "\r\n\r\n")
		if strings.Contains(head, "Transfer-Encoding") || strings.Contains(head, "Content-Length") || !strings.HasPrefix(body, "data: ") || !strings.HasSuffix(body, "data: [DONE]\n\n") {
			t.Errorf("%q:\n%s", keep, all)
		}
		w = r.dial()
		w.send("POST / HTTP/1.0\r\nHost: " + qwen + "\r\n" + keep + lengthOf(prompt) + "\r\n" + prompt)
		got, err := w.receive("POST")
		if err != nil || got.status != 200 || got.header.Get("Content-Length") == "" {
			t.Errorf("%q: %v %+v", keep, err, got)
		}
		if keep != "" {
			w.send("POST / HTTP/1.0\r\nHost: " + qwen + "\r\n" + lengthOf(prompt) + "\r\n" + prompt)
		}
		if more := w.statuses(); len(more) != len(keep)/len("Connection: keep-alive\r\n") {
			t.Errorf("%q: then %v", keep, more)
		}
	}
}
