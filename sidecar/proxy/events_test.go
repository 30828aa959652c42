package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

const eventsHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunkOf(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// Each case is what a provider sends until it falls silent, and what the app must have by then.
func TestWhatHasArrivedOfAStreamIsNotHeldBack(t *testing.T) {
	long := "data: " + strings.Repeat("x", 100<<10) + "\n\n"
	for name, c := range map[string]struct{ sent, seen string }{
		"the head":                  {eventsHead, ""},
		"half an event":             {eventsHead + chunkOf("data: a"), ""},
		"an event":                  {eventsHead + chunkOf("data: a\n\n"), "data: a\n\n"},
		"an event and a half":       {eventsHead + chunkOf("data: a\n\ndata"), "data: a\n\n"},
		"the next chunk's size":     {eventsHead + chunkOf("data: a\n\n") + "5\r\n", "data: a\n\n"},
		"half of its size":          {eventsHead + chunkOf("data: a\n\n") + "5", "data: a\n\n"},
		"the last chunk's size":     {eventsHead + chunkOf("data: a\n\n") + "0\r\n", "data: a\n\n"},
		"an event in many chunks":   {eventsHead + chunkOf("da") + chunkOf("ta: a") + chunkOf("\n") + chunkOf("\n"), "data: a\n\n"},
		"CRLF":                      {eventsHead + chunkOf("data: a\r\n\r\n"), "data: a\r\n\r\n"},
		"CR":                        {eventsHead + chunkOf("data: a\r\r"), "data: a\r\r"},
		"mixed line ends":           {eventsHead + chunkOf("data: a\n\r\n"), "data: a\n\r\n"},
		"several lines of data":     {eventsHead + chunkOf("event: x\ndata: a\ndata: b\n\n"), "event: x\ndata: a\ndata: b\n\n"},
		"a comment":                 {eventsHead + chunkOf(": ping\n\n"), ": ping\n\n"},
		"a long event":              {eventsHead + chunkOf(long), long},
		"an answer that is no SSE":  {"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + chunkOf("half a l"), "half a l"},
		"to the end, plain":         {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n", "data: a\n\n"},
		"compressed against wishes": {strings.Replace(eventsHead, "\r\n\r\n", "\r\nContent-Encoding: br\r\n\r\n", 1) + chunkOf("\x01\x02"), "\x01\x02"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			done := make(chan struct{})
			serve(t, func(_ int, conn *net.TCPConn, _ *http.Request) bool {
				_, _ = io.WriteString(conn, c.sent)
				<-done
				return false
			})
			defer close(done)
			resp, err := r.open(t.Context(), "POST", "http://raw", streamed)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			seen := make([]byte, len(c.seen))
			if _, err := io.ReadFull(resp.Body, seen); err != nil || string(seen) != c.seen {
				t.Errorf("the app has %.100q, %v", seen, err)
			}
		})
	}
}

func TestAStreamsLastEventArrivesWithoutItsBlankLine(t *testing.T) {
	for name, answer := range map[string]string{
		"chunks":     eventsHead + chunkOf("data: a\n\ndata: [DONE]") + "0\r\n\r\n",
		"to the end": "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\ndata: [DONE]",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			serve(t, always(answer, false))
			if got := r.do("POST", "http://raw", streamed); got.body != "data: a\n\ndata: [DONE]" {
				t.Errorf("got %q", got.body)
			}
		})
	}
}
