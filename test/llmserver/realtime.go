package llmserver

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// realtime tells whether a request is for the WebSocket.
func realtime(request *Request) bool {
	return request.Method == http.MethodGet && strings.HasSuffix(request.Path, "/realtime")
}

// upgrade answers GET …/realtime?model=: with 101 if the handshake is right to the letter of RFC 6455, section 4.2.1.
func upgrade(request *Request) answer {
	h := request.Header
	refuse := func(format string, a ...any) answer {
		return failure(http.StatusBadRequest, fmt.Sprintf(format, a...), "bad_handshake")
	}
	if request.Proto != "HTTP/1.1" || len(request.Body) > 0 {
		return refuse("A WebSocket begins with HTTP/1.1 and without a body; this is %s with %d bytes.", request.Proto, len(request.Body))
	}
	if !hasToken(h.Values("Connection"), "upgrade") || len(h.Values("Upgrade")) != 1 || !hasToken(h.Values("Upgrade"), "websocket") {
		return refuse("Send Connection: Upgrade and Upgrade: websocket; this is %q and %q.", h.Values("Connection"), h.Values("Upgrade"))
	}
	if v := h.Values("Sec-Websocket-Version"); len(v) != 1 || v[0] != "13" {
		a := failure(http.StatusUpgradeRequired, fmt.Sprintf("The version of WebSockets must be 13, once; it is %q.", v), "bad_handshake")
		a.header = []string{"Sec-WebSocket-Version: 13"}
		return a
	}
	keys := h.Values("Sec-Websocket-Key")
	if len(keys) != 1 {
		return refuse("%d Sec-WebSocket-Key headers.", len(keys))
	}
	if nonce, err := base64.StdEncoding.Strict().DecodeString(keys[0]); err != nil || len(nonce) != 16 {
		return refuse("Sec-WebSocket-Key must be 16 bytes in base64.")
	}
	query, err := url.ParseQuery(request.RawQuery)
	if err != nil || len(query["model"]) != 1 || query.Get("model") == "" {
		return failure(http.StatusBadRequest, "you must provide a model parameter, once, in the query", "missing_model")
	}
	sum := sha1.Sum([]byte(keys[0] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // what the RFC says, not a secret
	a := answer{status: http.StatusSwitchingProtocols, header: []string{
		"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]),
	}}
	if hasToken(h.Values("Sec-Websocket-Protocol"), "realtime") {
		a.header = append(a.header, "Sec-WebSocket-Protocol: realtime")
	}
	a.body = encode(map[string]any{
		"type": "session.created", "event_id": id("event_", query.Get("model")),
		"session": map[string]string{"object": "realtime.session", "id": id("sess_", query.Get("model")), "model": query.Get("model")},
	})
	return a
}

func hasToken(values []string, want string) bool {
	for _, v := range values {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), want) {
				return true
			}
		}
	}
	return false
}

// converse sends the upgrade and the first event, then each of the client's events back to it, until either side ends it.
// The faults cut-after and stall-after count events, the first one not.
func (c *connection) converse(p plan, w *watcher) outcome {
	o := outcome{status: p.status}
	head := "HTTP/1.1 101 Switching Protocols\r\n" + strings.Join(p.header, "\r\n") + "\r\n\r\n"
	if _, err := c.wire.Write(appendFrame([]byte(head), frame{last: true, op: opText, payload: p.body})); err != nil {
		return outcome{aborted: true}
	}
	if !<-w.more { // from here on nobody else reads
		o.aborted = true
		return o
	}
	for n := 0; ; n++ {
		if p.fault.CutAfter != nil && n == *p.fault.CutAfter {
			c.tcp.Close()
			return o
		}
		event, err := c.readMessage()
		if err == nil && p.fault.StallAfter != nil && n >= *p.fault.StallAfter {
			continue
		}
		if err == nil {
			err = c.echo(event, p.fault.Split)
		}
		if wrong := (*frameError)(nil); errors.As(err, &wrong) {
			_ = c.writeClose(wrong.code, wrong.reason)
			return o
		}
		if err != nil {
			o.whole = errors.Is(err, errClosed)
			o.aborted = !o.whole
			return o
		}
	}
}

// echo sends an event back, or says that it is none.
func (c *connection) echo(event []byte, split bool) error {
	var typed struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(event, &typed) != nil || typed.Type == "" {
		event = encode(map[string]any{"type": "error", "error": apiError{
			Message: "An event is a JSON object with a type.", Type: "invalid_request_error", Code: "bad_event",
		}})
	}
	if !split {
		return c.writeFrame(frame{last: true, op: opText, payload: event})
	}
	if err := c.writeFrame(frame{op: opText, payload: event[:1]}); err != nil {
		return err
	}
	return c.writeFrame(frame{last: true, op: opContinuation, payload: event[1:]})
}
