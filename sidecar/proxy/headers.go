package proxy

import (
	"bytes"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/trace"
)

// credential tells whether a header may carry the app's own credentials. They are removed where the
// provider's key is sent.
func credential(name []byte) bool {
	switch string(name) {
	case "Authorization", "Api-Key", "X-Api-Key", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key", "Cookie":
		return true
	}
	return false
}

// overrides tells whether a header may have a server take a request for another one: of another method or path, which the table
// of operations has not seen. They are removed where the provider's key is sent.
func overrides(name []byte) bool {
	switch string(name) {
	case "X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url":
		return true
	}
	return false
}

// nominated tells whether the Connection header names another one as belonging to the connection.
func nominated(connection, name []byte) bool {
	for token := range bytes.SplitSeq(connection, []byte{','}) {
		if bytes.EqualFold(bytes.TrimSpace(token), name) {
			return true
		}
	}
	return false
}

// connectionOf gives all that the Connection headers of a request say, separated by commas.
func connectionOf(h *fasthttp.RequestHeader) []byte {
	if first := h.Peek(fasthttp.HeaderConnection); len(first) == 0 {
		return nil
	}
	return joined(h.All(), fasthttp.HeaderConnection)
}

func joined(headers iter.Seq2[[]byte, []byte], name string) []byte {
	var all []byte
	for n, value := range headers {
		switch {
		case string(n) != name:
		case all == nil:
			all = value
		default:
			all = slices.Concat(all, []byte{','}, value)
		}
	}
	return all
}

// outgoing is the head of a request to a provider.
type outgoing struct {
	method    []byte
	path      string // with what the app's operation appends; never its query
	query     []byte // without the question mark
	authority string
	target    *routing.Target // nil for a foreign host
	key       routing.Key     // where the target has any
	operation *routing.Operation
	length    int                    // of the body; -1: chunked; -2: none
	websocket bool                   // the connection is to become one
	edits     [2]*routing.HeaderEdit // of the rule, and of the backend; nil: none
	via       *clientConn            // a gateway's client, of whom the backend is told; nil: it is not
	asked     []byte                 // the authority that it called
	trace     trace.Context          // what the provider is told of it; zero: what the app says
	anew      bool                   // nothing of what the app says
}

// head appends the request line and the headers. False means that the app sent a header whose name is
// none, which others could read differently.
func (o *outgoing) head(dst []byte, from *fasthttp.RequestHeader) ([]byte, bool) {
	dst = append(append(append(dst, o.method...), ' '), o.path...)
	keyed := o.target != nil && o.target.Keyed()
	fixed, removed := "", ""
	if o.target != nil {
		fixed = o.target.Query
	}
	if keyed {
		removed = ownCredentials
	}
	dst = appendQuery(dst, fixed, removed, o.query)
	dst = append(append(append(dst, " HTTP/1.1\r\nHost: "...), o.authority...), "\r\n"...)
	counted := o.operation != nil
	connection := connectionOf(from)
	valid := true
	for name, value := range from.All() {
		switch string(name) {
		case "Host", "Content-Length", "Expect":
			continue
		case "Accept-Encoding":
			if counted {
				continue
			}
		case "Content-Encoding":
			if counted && o.operation.JSON {
				continue // it has been decoded
			}
		case headerProtocols:
			if keyed {
				dst = appendProtocols(dst, name, value)
				continue
			}
		case "Sec-Websocket-Extensions":
			if keyed {
				continue // what is compressed cannot be searched for the key
			}
		case headerTraceparent:
			if !o.trace.IsZero() {
				continue
			}
		case headerTracestate:
			if o.anew {
				continue
			}
		case "Content-Type":
			if counted && o.operation.JSON && bytes.HasPrefix(value, []byte("application/x-www-form-urlencoded")) {
				continue // what curl -d says of any text
			}
		}
		if routing.HopByHop(name) || keyed && (credential(name) || overrides(name)) || len(connection) > 0 && nominated(connection, name) {
			continue
		}
		if bytes.IndexByte(name, ' ') >= 0 {
			valid = false
		}
		if o.via != nil && forwarding(name) || o.replaces(name) {
			continue
		}
		dst = appendHeader(dst, name, value)
	}
	if counted {
		// Compressed answers could not be followed event by event.
		dst = append(dst, "Accept-Encoding: identity\r\n"...)
		if o.operation.JSON && !bytes.Contains(from.ContentType(), []byte("json")) {
			dst = append(dst, "Content-Type: application/json\r\n"...)
		}
	}
	if o.via != nil {
		dst = o.appendForwarded(dst, from)
	}
	if !o.trace.IsZero() && !o.replaces([]byte(headerTraceparent)) {
		dst = append(o.trace.AppendHeader(append(dst, "Traceparent: "...)), "\r\n"...)
	}
	dst = o.appendEdits(dst)
	if keyed {
		dst = appendKey(dst, o.target, o.key)
	}
	if o.websocket {
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	}
	switch {
	case o.length >= 0:
		dst = strconv.AppendInt(append(dst, "Content-Length: "...), int64(o.length), 10)
		dst = append(dst, "\r\n"...)
	case o.length == -1:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(dst, "\r\n"...), valid
}

func appendHeader(dst, name, value []byte) []byte {
	return append(append(append(append(dst, name...), ": "...), value...), "\r\n"...)
}

// persists tells whether the provider keeps the connection for another request after this answer.
func persists(h *fasthttp.ResponseHeader) bool {
	return !h.ConnectionClose() && !nominated(h.Peek(fasthttp.HeaderConnection), []byte("close"))
}

// strip makes the head of a provider's answer fit for the app's connection.
func strip(h *fasthttp.ResponseHeader) {
	if connection := string(joined(h.All(), fasthttp.HeaderConnection)); connection != "" {
		for token := range strings.SplitSeq(connection, ",") {
			if token = strings.TrimSpace(token); token != "" && !strings.EqualFold(token, "close") {
				h.Del(token)
			}
		}
	}
	for _, name := range [...]string{
		fasthttp.HeaderConnection, "Keep-Alive", fasthttp.HeaderProxyConnection, "Proxy-Authenticate",
		fasthttp.HeaderTE, fasthttp.HeaderTrailer, fasthttp.HeaderTransferEncoding, fasthttp.HeaderUpgrade,
	} {
		h.Del(name)
	}
	h.ResetConnectionClose()
	h.SetProtocol([]byte("HTTP/1.1")) // the app's connection need not be of the provider's version
}

// matchable lets rules see the app's request.
type matchable struct{ c *call }

// Header gives the values of a header, joined by ",".
func (m matchable) Header(name string) ([]byte, bool) {
	all := m.c.ctx.Request.Header.PeekAll(name)
	switch len(all) {
	case 0:
		return nil, false
	case 1:
		return all[0], true
	}
	return bytes.Join(all, []byte{','}), true
}

// Method gives the method.
func (m matchable) Method() []byte { return m.c.ctx.Method() }

// Authority gives what the request is for.
func (m matchable) Authority() []byte { return m.c.authority }

// Path gives the path as written.
func (m matchable) Path() []byte { return m.c.path }

// QueryParameter gives the first value of a parameter, unescaped.
func (m matchable) QueryParameter(name string) ([]byte, bool) {
	args := fasthttp.AcquireArgs()
	defer fasthttp.ReleaseArgs(args)
	args.ParseBytes(m.c.query)
	if !args.Has(name) {
		return nil, false
	}
	return bytes.Clone(args.Peek(name)), true
}
