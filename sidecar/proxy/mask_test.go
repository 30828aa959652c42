package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const rawKey = "sk-raw-0123456789"

var masked = strings.Repeat("*", len(rawKey))

// wholly gives all that the app's connection brings in answer to a call.
func (r *rig) wholly(t *testing.T, call string) string {
	t.Helper()
	c := direct(t, r.addr)
	say(t, c, call)
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var closing = strings.Replace(chat("raw"), "\r\n", "\r\nConnection: close\r\n", 1)

func TestAProviderThatTellsTheKeyIsNotHeard(t *testing.T) {
	chunks := func(pieces ...string) string {
		var b strings.Builder
		for _, p := range pieces {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
		}
		return b.String() + "0\r\n\r\n"
	}
	json := `{"error":{"message":"Incorrect API key provided: ` + rawKey + `","key":"` + rawKey + `"}}`
	events := "data: {\"choices\":[{\"delta\":{\"content\":\"" + rawKey + "\"}}]}\n\n"
	for name, answer := range map[string]string{
		"in headers": "HTTP/1.1 401 No " + rawKey + "\r\nX-Echo: Bearer " + rawKey + "\r\nX-Echo: " + rawKey + rawKey + "\r\nSet-Cookie: k=" + rawKey + "; Path=/\r\n" +
			"Server: " + rawKey + "\r\nContent-Type: text/" + rawKey + "\r\nContent-Encoding: " + rawKey + "\r\nLocation: http://h/?key=" + rawKey + "\r\nWWW-Authenticate: Bearer realm=" + rawKey + "\r\nContent-Length: 2\r\n\r\n{}",
		"in a header's name":      "HTTP/1.1 200 OK\r\nX-" + rawKey + ": 1\r\nContent-Length: 2\r\n\r\n{}",
		"in a folded header":      "HTTP/1.1 200 OK\r\nX-Echo: a\r\n " + rawKey + "\r\nContent-Length: 2\r\n\r\n{}",
		"in an interim answer":    "HTTP/1.1 103 " + rawKey + "\r\nLink: <" + rawKey + ">\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"in an error":             "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n" + lengthOf(json) + "\r\n" + json,
		"in a redirect":           "HTTP/1.1 302 Found\r\nLocation: https://attacker.example/?k=" + rawKey + "\r\nContent-Length: 0\r\n\r\n",
		"in chunks":               "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(json[:60], json[60:]),
		"in chunks of a byte":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(strings.Split(json, "")...),
		"in chunk extensions":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + rawKey + "\r\n{}\r\n0\r\nX-Echo: " + rawKey + "\r\n\r\n",
		"to the connection's end": "HTTP/1.1 200 OK\r\n\r\n" + json,
		"in events":               "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(events, events, "data: [DONE]\n\n"),
		"in events of a byte":     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(strings.Split(events+events, "")...),
		"in an event without end": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
			chunks("data: "+strings.Repeat("x", 65500), strings.Repeat("y", 50)+rawKey[:9], rawKey[9:]+"z", strings.Repeat("z", 70000)+rawKey[:5], rawKey[5:]),
		"in its middle, and it is cut": "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + json,
		"in no HTTP":                   rawKey + "\r\n\r\n",
		"in a broken head":             "HTTP/1.1 2oo " + rawKey + "\r\n" + rawKey + "\r\n\r\n",
		"in a broken chunk":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + rawKey + "\r\n",
	} {
		for _, by := range []struct {
			name string
			size int
		}{{"at once", 1 << 20}, {"in pieces", 7}} {
			if by.size == 7 && len(answer) > 4096 {
				continue
			}
			t.Run(name+", "+by.name, func(t *testing.T) {
				r := newRig(t, rawConfig(""))
				serve(t, func(_ int, c *net.TCPConn, q *http.Request) bool {
					if q.Header.Get("Authorization") != "Bearer "+rawKey {
						t.Errorf("the provider got %v", q.Header)
					}
					for rest := answer; rest != ""; {
						n := min(len(rest), by.size)
						_, _ = io.WriteString(c, rest[:n])
						rest = rest[n:]
					}
					return false
				})
				got := r.wholly(t, closing)
				if resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil); err == nil { // without the chunks
					b, _ := io.ReadAll(resp.Body)
					got += string(b)
				}
				if strings.Contains(strings.ToLower(got), rawKey) {
					t.Errorf("the app got the key:\n%s", got)
				}
				if want := strings.Count(answer, rawKey); strings.Contains(name, "error") && strings.Count(got, masked) != 2*want {
					t.Errorf("want %d masked keys:\n%s", want, got)
				}
				if line := r.log.find(rawKey); line != "" {
					t.Errorf("the log has it: %s", line)
				}
			})
		}
	}
}

func TestAMaskedAnswerIsWhole(t *testing.T) {
	r := newRig(t, rawConfig(""))
	body := "a" + rawKey + "b" + rawKey[:10] + "c" + rawKey + rawKey[:16]
	serve(t, func(n int, c *net.TCPConn, _ *http.Request) bool {
		if n == 0 {
			say(t, c, "HTTP/1.1 200 OK\r\n"+lengthOf(body)+"\r\n"+body)
			return true
		}
		say(t, c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range body {
			say(t, c, "1\r\n"+body[i:i+1]+"\r\n")
		}
		say(t, c, "0\r\n\r\n")
		return true
	})
	for range 2 {
		if got := r.do("POST", "http://raw/", prompt); got.body != strings.ReplaceAll(body, rawKey, masked) {
			t.Errorf("got %q", got.body)
		}
	}
}

// What does not begin the key is not waited for.
func TestAChunkIsHeldBackOnlyWhereItMayBeginTheKey(t *testing.T) {
	r := newRig(t, rawConfig(""))
	next := make(chan string)
	serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		say(t, c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
		for piece := range next {
			say(t, c, fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece))
		}
		say(t, c, "0\r\n\r\n")
		return true
	})
	c := direct(t, r.addr)
	say(t, c, chat("raw"))
	next <- "first"
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	hear(t, resp.Body, "first")
	next <- "second, sk-ra"
	hear(t, resp.Body, "second, ")
	next <- "t"
	hear(t, resp.Body, "sk-rat")
	next <- "sk-raw"
	close(next)
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "sk-raw" {
		t.Errorf("the end is %q, %v", b, err)
	}
}

func TestAnAppWithoutAKeyOfOursHearsAllThatItsProviderSays(t *testing.T) {
	r := newRig(t, strings.Replace(rawConfig(""), "\n  configs: {defaultConfig: {openAIConfig: {apiKey: "+rawKey+"}}}", "", 1))
	serve(t, always("HTTP/1.1 200 OK\r\nX-Echo: "+rawKey+"\r\n"+lengthOf(rawKey)+"\r\n"+rawKey, true))
	if got := r.do("POST", "http://raw/", prompt); got.body != rawKey || got.header.Get("X-Echo") != rawKey {
		t.Errorf("got %+v", got)
	}
}

func TestAWebSocketDoesNotTellTheKey(t *testing.T) {
	r := newRig(t, rawConfig(""))
	frames := make(chan string)
	serve(t, func(_ int, c *net.TCPConn, q *http.Request) bool {
		if got := q.Header.Get("Sec-WebSocket-Extensions"); got != "" {
			t.Errorf("the provider may compress: %s", got)
		}
		say(t, c, "HTTP/1.1 101 Switching "+rawKey+"\r\nX-Echo: "+rawKey+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		for f := range frames {
			say(t, c, f)
		}
		return false
	})
	c := direct(t, r.addr)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	say(t, c, "GET /v1/realtime?model=m HTTP/1.1\r\nHost: raw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	in := bufio.NewReader(c)
	head := ""
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		head += line
	}
	if strings.Contains(head, rawKey) || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Errorf("the answer is %s", head)
	}
	frame := func(text string) string { return "\x81" + string(rune(len(text))) + text }
	frames <- frame("a " + rawKey + " b")
	hear(t, in, frame("a "+masked+" b"))
	frames <- frame("it ends as keys begin: sk-raw") // which is not waited for
	hear(t, in, frame("it ends as keys begin: sk-raw"))
	whole := frame("in two pieces: " + rawKey)
	frames <- whole[:20]
	hear(t, in, whole[:17])
	frames <- whole[20:]
	hear(t, in, masked)
	frames <- "\x81\x20sk-raw"
	close(frames)
	if b, err := io.ReadAll(in); string(b) != "\x81\x20sk-raw" {
		t.Errorf("the end is %q, %v", b, err)
	}
}

func TestNoCredentialOfTheAppsReachesAProviderThatGetsAKey(t *testing.T) {
	r := newRig(t, rawConfig(""))
	h := serve(t, always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", true))
	for _, lines := range []string{
		"Authorization: sk-app", "aUTHORIZATION: sk-app\r\nAuthorization: sk-app", "Authorization:\r\n sk-app", "Authorization: a\r\n\tsk-app",
		"Proxy-Authorization: sk-app", "API-KEY:sk-app", "x-api-KEY:\tsk-app", "X-goog-api-key: sk-app", "cookie: k=sk-app\r\nCookie: sk-app",
		"Connection: Authorization\r\nAuthorization: sk-app", "Connection: X-Api-Key, close\r\nX-Api-Key: sk-app",
		"Ocp-Apim-Subscription-Key: sk-app", "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-app",
		"Authorization : sk-app", "Authorization\t: sk-app", " Authorization: sk-app", "X: y\r\n Authorization: sk-app\r\nCookie\r\n : sk-app",
	} {
		call := strings.Replace(chat("raw"), "\r\n", "\r\n"+lines+"\r\n", 1)
		if _, err := r.raw(call); err != nil {
			t.Errorf("%q: %v", lines, err)
		}
	}
	for _, query := range []string{"key=sk-app", "a=1&KEY=sk-app&b", "api_key=sk-app;api-key=sk-app", "%61ccess_token=sk-app&token=sk-app"} {
		r.do("POST", "http://raw/?"+query, prompt)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.got) < 15 {
		t.Errorf("only %d calls arrived", len(h.got))
	}
	for _, q := range h.got {
		if got := fmt.Sprint(q.URL, q.Header); strings.Contains(got, "sk-app") && !strings.Contains(got, "X:[y") || strings.Count(got, rawKey) != 1 {
			t.Errorf("arrived: %s", got)
		}
	}
}
