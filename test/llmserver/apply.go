package llmserver

import (
	"bytes"
	"net"
	"net/http"
	"slices"
	"strings"
)

// answer decides on the answer to one request and gives it.
func (c *connection) answer(request *Request, w *watcher, close bool) outcome {
	fault, err := c.faultFor(request)
	if err != nil {
		return c.send(plan{answer: failure(http.StatusBadRequest, err.Error(), "bad_fault"), close: close}, w)
	}
	if !w.pause(fault.Delay) {
		return outcome{aborted: true}
	}
	switch {
	case fault.Reset:
		if tcp, ok := c.tcp.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // unsent and unread data is thrown away and the client gets a RST
		}
		c.tcp.Close()
		return outcome{}
	case fault.Close:
		return outcome{}
	case fault.Garbage:
		_, _ = c.wire.Write([]byte("\x16\x03 I am not HTTP.\r\n\r\n"))
		return outcome{}
	}
	delay := c.server.options.ChunkDelay
	if fault.ChunkDelay > 0 {
		delay = fault.ChunkDelay
	}
	p := plan{
		answer: fault.applied(c.server.decide(request, fault.shape())),
		fault:  fault, delay: delay, close: close, head: request.Method == http.MethodHead,
	}
	if fault.Reflect {
		p.answer = p.reflecting(request.RawHeader)
	}
	if p.status == http.StatusSwitchingProtocols {
		return c.converse(p, w)
	}
	o := c.send(p, w)
	if !p.head {
		c.server.tallies.add(hostname(request.Host), p.account(o))
	}
	return o
}

func (c *connection) faultFor(request *Request) (Fault, error) {
	if text := request.Header.Get(FaultHeader); text != "" {
		return ParseFault(text)
	}
	return c.server.scripts.next(request.Host), nil
}

// applied changes what is said.
func (f Fault) applied(a answer) answer {
	if f.Redirect != "" {
		a = failure(http.StatusTemporaryRedirect, "Moved to "+f.Redirect, "moved")
		a.header = []string{"Location: " + f.Redirect}
	}
	if f.Status != 0 {
		a = statusFailure(f.Status)
	}
	if f.Body != "" {
		a.contentType, a.body, a.events, a.bill = "application/json", []byte(f.Body), nil, bill{}
	}
	if f.Huge > 0 {
		a.contentType, a.body, a.events, a.bill = "application/json", nil, huge(f.Huge), bill{}
	}
	if f.ErrorAfter != nil && a.contentType == eventStream {
		a.events, a.bill = failing(a.events, *f.ErrorAfter), a.bill.failing(*f.ErrorAfter)
	}
	if f.RetryAfter != "" {
		a.header = append(slices.Clip(a.header), "Retry-After: "+f.RetryAfter)
	}
	return a
}

// failing are the first n of the events, and one that tells of an error: in the shape of the API that they are of.
func failing(events [][]byte, n int) [][]byte {
	const message, code = "The server had an error while processing your request.", "server_error"
	failed := event("", map[string]apiError{"error": {Message: message, Type: code, Code: code}})
	if bytes.HasPrefix(events[0], []byte("event: response.")) {
		failed = event("error", map[string]any{"type": "error", "code": code, "message": message, "param": nil, "sequence_number": n})
	}
	return append(slices.Clip(events[:min(n, len(events))]), failed)
}

// huge is a JSON body of exactly n bytes, in pieces that share their memory.
func huge(n int64) [][]byte {
	const start, end = `{"padding":"`, `"}`
	filler := []byte(strings.Repeat("x", 32<<10))
	pieces := [][]byte{[]byte(start)}
	for left := n - int64(len(start)+len(end)); left > 0; left -= int64(len(filler)) {
		pieces = append(pieces, filler[:min(left, int64(len(filler)))])
	}
	return append(pieces, []byte(end))
}

// reflecting tells the lines of a request's head: each in a header of its own, and all of them in the body, as the field
// "reflected" of the JSON object, or of an event before and one after those of the stream.
func (a answer) reflecting(lines []string) answer {
	a.header = slices.Clip(a.header)
	for _, line := range lines {
		a.header = append(a.header, "X-Reflected-"+line)
	}
	told := encode(map[string][]string{"reflected": lines})
	switch {
	case a.contentType == eventStream && len(a.events) > 0:
		one := slices.Concat([]byte("data: "), told, []byte("\n\n"))
		a.events = slices.Concat([][]byte{one}, a.events, [][]byte{one})
	case bytes.HasSuffix(a.body, []byte("}")):
		a.body = slices.Concat(a.body[:len(a.body)-1], []byte(","), told[1:])
	}
	return a
}
