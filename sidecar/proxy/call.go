package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// call is one request of an app, from its arrival until the answer's head is there.
type call struct {
	proxy     *Proxy
	ctx       *fasthttp.RequestCtx
	client    *clientConn
	authority []byte
	path      []byte // as written, without the query
	query     []byte

	rule      *routing.Rule
	operation *routing.Operation // nil: none of the table's; passed on as it is where no key is sent
	model     string             // of GET .../models/NAME, with its slash
	read      bool               // the body has been read
	body      []byte
	document  document
	head      []byte // of the request to the provider
	deadline  time.Time
	target    *routing.Target // of the current attempt

	level    int
	tried    uint64
	attempts int // that failed so far
}

var calls = sync.Pool{New: func() any { return new(call) }}

// keepBody is the largest body buffer that is kept for the next request.
const keepBody = 1 << 20

func newCall(p *Proxy, ctx *fasthttp.RequestCtx) *call {
	c := calls.Get().(*call)
	*c = call{proxy: p, ctx: ctx, client: ctx.Conn().(*clientConn), body: c.body[:0], head: c.head[:0]}
	return c
}

func (c *call) done() {
	if cap(c.body) > keepBody {
		c.body = nil
	}
	*c = call{body: c.body[:0], head: c.head[:0]}
	calls.Put(c)
}

// provider names the provider of the last attempt, for the log.
func (c *call) provider() string {
	if c.target == nil {
		return ""
	}
	return c.target.Provider.String()
}

// serve answers the request, or says why not.
func (c *call) serve() *failure {
	absolute, f := c.parse()
	if f != nil {
		return f
	}
	s := c.proxy.store.Load()
	host := s.Table.Host(c.authority)
	if host == nil {
		return c.foreign(absolute, s.Table.Incomplete())
	}
	if r := host.Refusal; r != nil {
		return fail(r.Code, "%s", r.Message)
	}
	c.operation, c.model = host.Operation(c.path)
	wrongMethod := c.operation != nil && string(c.ctx.Method()) != c.operation.Method
	if wrongMethod {
		c.operation = nil
	}
	if f := c.readBody(); f != nil {
		return f
	}
	if c.operation != nil && c.operation.JSON {
		if e := c.ctx.Request.Header.ContentEncoding(); len(e) > 0 && string(e) != "identity" {
			return fail(routing.UnsupportedEncoding, "the body is compressed (%s): send it as plain JSON", e)
		}
		if c.document, f = scan(c.body); f != nil {
			return f
		}
	}
	c.rule = host.Match(matchable{&c.ctx.Request.Header}, c.document.modelValue)
	if c.rule == nil {
		return fail(routing.NoRuleMatches, "no rule of the LLMRoute for %s matches this request: add one without matches, or correct the request", host.Name)
	}
	if c.rule.Timeouts.Request > 0 {
		c.deadline = time.Now().Add(c.rule.Timeouts.Request)
	}
	return c.attempt(wrongMethod)
}

// parse finds out what the request is for. absolute says that the app used the proxy as one, naming the
// whole URL.
func (c *call) parse() (absolute bool, f *failure) {
	h := &c.ctx.Request.Header
	uri := h.RequestURI()
	c.authority = h.Host()
	switch {
	case h.IsConnect():
		return false, fail(routing.MethodNotAllowed, "CONNECT is not supported yet: call the provider with http://, the sidecar adds TLS")
	case len(uri) > 0 && uri[0] == '/':
	default:
		rest, ok := cutScheme(uri)
		if !ok {
			return false, fail(routing.InvalidRequest, "the request target %q is neither a path nor an http:// URL", uri)
		}
		absolute = true
		end := bytes.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		c.authority, uri = rest[:end], rest[end:]
	}
	if len(c.authority) == 0 {
		return false, fail(routing.InvalidRequest, "the request names no host: send a Host header")
	}
	if bytes.ContainsAny(c.authority, "@ \t,/\\") {
		return false, fail(routing.InvalidRequest, "%q is not a host: leave out user names and other additions", c.authority)
	}
	if bytes.IndexByte(uri, '#') >= 0 {
		return false, fail(routing.InvalidRequest, "the request target has a fragment: leave out # and what follows it")
	}
	c.path, c.query, _ = bytes.Cut(uri, []byte{'?'})
	return absolute, nil
}

func cutScheme(uri []byte) ([]byte, bool) {
	for _, scheme := range [...]string{"http://", "https://"} {
		if len(uri) >= len(scheme) && bytes.EqualFold(uri[:len(scheme)], []byte(scheme)) {
			return uri[len(scheme):], true
		}
	}
	return nil, false
}

// readBody reads the request's body as a whole, so that it can be judged, edited and sent again.
func (c *call) readBody() *failure {
	in := c.ctx.RequestBodyStream()
	if in == nil {
		c.read = true
		return nil
	}
	length := c.ctx.Request.Header.ContentLength()
	if length > maxBody {
		return fail(routing.RequestTooLarge, "the body has %d bytes, and at most %d are taken: send less", length, maxBody)
	}
	if length > 0 {
		c.body = slices.Grow(c.body, min(length, keepBody)+1)
	}
	for {
		if len(c.body) == cap(c.body) {
			c.body = slices.Grow(c.body, max(4096, cap(c.body)))
		}
		if len(c.body) > 8192 || length < 0 { // the first 8 KiB are here already
			_ = c.client.SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		n, err := in.Read(c.body[len(c.body):cap(c.body)])
		c.body = c.body[:len(c.body)+n]
		switch {
		case len(c.body) > maxBody:
			return fail(routing.RequestTooLarge, "the body is larger than %d bytes: send less", maxBody)
		case err == io.EOF && length >= 0 && len(c.body) < length:
			c.ctx.SetConnectionClose()
			return fail(routing.ClientGone, "the app left in the middle of its request")
		case err == io.EOF:
			c.read = true
			return nil
		case err != nil:
			c.ctx.SetConnectionClose()
			c.read = true // there is nothing left that could be read
			var netErr net.Error
			if errors.As(err, &netErr) && netErr.Timeout() {
				return fail(routing.RequestTimeout, "nothing of the body arrived for %s", bodyTimeout)
			}
			if c.client.left() {
				return fail(routing.ClientGone, "the app left in the middle of its request").because(err)
			}
			return fail(routing.InvalidRequest, "the body is not framed as HTTP/1.1 asks: check its length or chunks").because(err)
		}
	}
}

// drain takes in what is left of a body that was refused, so that the app gets to read the answer
// instead of a reset, and closes the connection: what follows could be anything.
func (c *call) drain() {
	if c.read {
		return
	}
	c.ctx.SetConnectionClose()
	in := c.ctx.RequestBodyStream()
	if in == nil {
		return
	}
	_ = c.client.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.CopyN(io.Discard, in, drainLimit)
}

const (
	drainTime  = 5 * time.Second
	drainLimit = 256 << 20
)
