package desync_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// An answer is a text that a provider sends for the request with the marker "one". What is asked after it, with the marker
// "last", it answers as it should. {ok} is an answer with the marker "one", {evil} one with the marker "evil".
//
// want is what the app gets for "one": a status, or for a 200 its marker, or "cut" where the answer began and did not end
// in order. What it gets for "last" must be the answer to "last".
type answer struct {
	name string
	text string
	want string
}

// answers are what a broken or a bad provider says. After each of them the connection stays open: it is for the proxy to
// know whether it can be used again.
var answers = []answer{
	{"as it should be", "{ok}", "one"},
	{"two answers", "{ok}{evil}", "one"},
	{"two answers, in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<one>\r\n0\r\n\r\n{evil}", "one"},
	{"something behind", "{ok}x", "one"},
	{"a line behind", "{ok}\r\n", "one"},
	{"the head of another behind", "{ok}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "one"},
	{"an interim answer behind", "{ok}HTTP/1.1 100 Continue\r\n\r\n", "one"},
	{"interim answers in front", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n{ok}", "one"},
	{"a flood of interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10_000) + "{ok}", "502"},
	{"an interim answer with a length", "HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\n{ok}", "one or 502"},
	{"an upgrade that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n{evil}", "502"},
	{"204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n<evil>", "204"},
	{"204 with an answer for a body", "HTTP/1.1 204 No Content\r\n\r\n{evil}", "204"},
	{"204 in chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n<evil>\r\n0\r\n\r\n", "204"},
	{"304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n<evil>", "304"},
	{"chunked, then a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\n<one>\r\n0\r\n\r\n", "one or 502"},
	{"a length, then chunked", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<one>\r\n0\r\n\r\n{evil}", "one or 502"},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 200\r\n\r\n<one>{evil}", "502"},
	{"two equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n<one>{evil}", "one or 502"},
	{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n<one>{evil}", "one or 502"},
	{"a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n<one>{evil}", "502"},
	{"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n<one>{evil}", "502"},
	{"a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n<one>{evil}", "502"},
	{"a length of 2^64", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\n<one>{evil}", "502"},
	{"an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n<one>{evil}", "502"},
	{"another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n<one>{evil}", "502"},
	{"another coding and chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\n<one>\r\n0\r\n\r\n{evil}", "502"},
	{"identity and a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n<one>", "one or 502"},
	{"xchunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n<one>{evil}", "502"},
	{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<one>\r\n0\r\n\r\n", "one or 502"},
	{"a space before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n<one>{evil}", "one or 502"},
	{"a folded length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\n\r\n<one>", "one or 502"},
	{"a CR in a value", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"a LF in a value", "HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\r\n<one>", "one or 502"},
	{"a NUL in a value", "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"a control byte in a value", "HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"a NUL in a name", "HTTP/1.1 200 OK\r\nX\x00: a\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"no colon", "HTTP/1.1 200 OK\r\nnothing\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"an empty name", "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"not HTTP", "220 mail.example.com ESMTP\r\n\r\n", "502"},
	{"HTTP/0.9", "<one>\r\n\r\n", "502"},
	{"HTTP/2", "HTTP/2 200 OK\r\nContent-Length: 5\r\n\r\n<one>", "one or 502"},
	{"the preface of HTTP/2", "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x10\x00\x00\x00\x06\x00\x00\x40\x00\r\n\r\n", "502"},
	{"a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"a negative status", "HTTP/1.1 -200 OK\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"a status that is none", "HTTP/1.1 OK 200\r\nContent-Length: 5\r\n\r\n<one>", "502"},
	{"a status of 000", "HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\n<one>", "one or 502"},
	{"a chunk that is too long", "{chunked}5\r\n<one>x\r\n0\r\n\r\n", "cut"},
	{"a chunk with a LF", "{chunked}5\n<one>\n0\n\n", "one or cut"},
	{"a chunk of negative size", "{chunked}5\r\n<one>\r\n-1\r\n\r\n{evil}", "cut"},
	{"a chunk of 2^64", "{chunked}5\r\n<one>\r\n10000000000000005\r\n<two>\r\n0\r\n\r\n", "cut"},
	{"a chunk without a size", "{chunked}5\r\n<one>\r\n\r\n0\r\n\r\n{evil}", "cut"},
	{"a head within a chunk", "{chunked}5\r\n<one>\r\n0\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<evil>", "one or cut"},
	{"framing in the trailer", "{chunked}5\r\n<one>\r\n0\r\nContent-Length: 6\r\nSet-Cookie: evil\r\n\r\n{evil}", "one"},
	{"a line that is split in the reason", "HTTP/1.1 200 OK\rX: evil\r\nContent-Length: 5\r\n\r\n<one>", "one or 502"},
}

// says gives the text that a provider sends.
func (a answer) says() string {
	return strings.NewReplacer(
		"{ok}", okay("one"), "{evil}", okay("evil"), "{chunked}", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	).Replace(a.text)
}

func okay(marker string) string {
	body := fmt.Sprintf(`{"choices":[],"said":"<%s>"}`, marker)
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// bad is a provider that answers "one" with a text, and all else with its marker. What it sends without being asked it
// sends in one write with the answer before, so it is there when the proxy looks.
type bad struct {
	mu   sync.Mutex
	text string
	open []net.Conn
}

func (b *bad) set(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = text
}

// interject sends a text on all connections. When it returns, the text has arrived.
func (b *bad) interject(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.open {
		_, _ = io.WriteString(c, text) // some are closed
	}
}

func (b *bad) serve(c net.Conn) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		marker := markerOf(string(body))
		b.mu.Lock()
		text := b.text
		b.mu.Unlock()
		if marker != "one" {
			text = okay(marker)
		}
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

func startBad(t *testing.T) *bad {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.5:80")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	b := &bad{}
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for _, c := range b.open {
			c.Close()
		}
		b.mu.Unlock()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.open = append(b.open, c)
			b.mu.Unlock()
			running.Go(func() { b.serve(c) })
		}
	})
	return b
}

// ask sends a request and says what came of it. A connection that the proxy has closed is opened again.
func ask(t *testing.T, proxy string, a **app, target, marker string) string {
	t.Helper()
	for again := false; ; again = true {
		if *a == nil {
			*a = dial(t, proxy)
		}
		head := "POST " + target + " HTTP/1.1\r\nHost: raw.example.com\r\n"
		_, err := io.WriteString(*a, wholeRequest(head, marker, ""))
		if err == nil {
			_, err = (*a).in.Peek(1)
		}
		if err != nil && !again {
			(*a).Close()
			*a = nil
			continue
		}
		reply, err := (*a).receive()
		switch {
		case err != nil:
			(*a).Close()
			*a = nil
			return "cut"
		case reply.status == 200:
			return markerOf(reply.body)
		}
		return fmt.Sprint(reply.status)
	}
}

func TestABadAnswerIsNobodyElses(t *testing.T) {
	b := startBad(t)
	proxy := start(t, "raw.example.com")
	for _, one := range answers {
		t.Run(one.name, func(t *testing.T) {
			b.set(one.says())
			var a *app
			for range 2 { // the second time with a connection that was in use
				got := ask(t, proxy, &a, "/v1/chat/completions", "one")
				if !strings.Contains(" or "+one.want+" or ", " or "+got+" or ") {
					t.Errorf("the app got %s, want %s", got, one.want)
				}
				for _, marker := range []string{"last", "very last"} {
					if got := ask(t, proxy, &a, "/v1/chat/completions", marker); got != marker {
						t.Errorf("then the app asked for %q and got %q", marker, got)
					}
				}
			}
		})
	}
}

func TestAnAnswerToNobodyIsNobodys(t *testing.T) {
	b := startBad(t)
	proxy := start(t, "raw.example.com")
	var a *app
	for i := range 5 {
		marker := fmt.Sprint("number ", i)
		if got := ask(t, proxy, &a, "/v1/chat/completions", marker); got != marker {
			t.Errorf("the app asked for %q and got %q", marker, got)
		}
		b.interject(okay("evil"))
	}
}
