package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
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
	closing   bool               // the app's connection is not to be used again
	body      []byte
	document  document
	head      []byte // of the request to the provider
	deadline  time.Time
	target    *routing.Target // of the current attempt

	level    int
	tried    uint64
	attempts int // that failed so far, and are followed by another
	made     int // attempts that were begun
	trial    trial
	forced   bool // the current target is ejected, as all are
	budget   *retryBudget
	withheld bool // an attempt, since the budget is spent
	once     bool // the body cannot be sent a second time
	sent     bool // something of the request has gone out
}

var calls = sync.Pool{New: func() any { return new(call) }}

// plainPort is that of http:// URLs.
const plainPort = 80

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

// details are what the log says of a failure: only what there is.
func (c *call) details(f *failure) []any {
	all := []any{"code", f.code, "host", string(c.authority)}
	if c.target != nil {
		all = append(all, "provider", c.target.Provider.String())
	}
	if c.made > 0 {
		all = append(all, "attempts", c.made)
	}
	if c.withheld {
		all = append(all, "retry", routing.RetryBudgetSpent)
	}
	all = append(all, "message", f.message)
	if f.cause != nil {
		all = append(all, "cause", f.cause.Error())
	}
	return all
}

// serve answers the request, or says why not.
func (c *call) serve() *failure {
	in := c.ctx.RequestBodyStream()
	c.read = in == nil || c.ctx.Request.Header.ContentLength() == 0
	if ambiguous(&c.ctx.Request.Header) {
		c.read = false
		return fail(routing.InvalidRequest, "Transfer-Encoding can only be chunked, without a Content-Length: correct the client")
	}
	s := c.proxy.store.Load()
	if c.ctx.Request.Header.IsConnect() {
		return c.connect(s)
	}
	absolute, f := c.parse()
	if f != nil {
		return f
	}
	host := s.Table.Host(c.authority)
	if host == nil {
		return c.foreign(absolute, s)
	}
	if r := host.Refusal; r != nil {
		return fail(r.Code, "%s", r.Message)
	}
	c.operation, c.model = host.Operation(c.path)
	var otherwise *routing.Operation
	if c.operation != nil && string(c.ctx.Method()) != c.operation.Method {
		otherwise, c.operation = c.operation, nil
	}
	if f := c.readBody(in); f != nil {
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
	c.budget = c.proxy.budgets.of(host)
	c.budget.deposit()
	return c.attempt(otherwise)
}

// connect opens a tunnel to an owned host, which ends here: what comes through it is plain HTTP, and every
// request of it is judged like any other. Some clients (undici's ProxyAgent is one) ask for a tunnel even
// where the URL is http://.
func (c *call) connect(s *snapshot.Snapshot) *failure {
	c.authority = c.ctx.Request.Header.RequestURI()
	_, port, ok := splitAuthority(c.authority)
	switch {
	case !ok:
		return fail(routing.InvalidRequest, "the request target of CONNECT must be a host and a port")
	case s.Table.Host(c.authority) == nil && c.client.redirected:
		return c.misdirected(s)
	case s.Table.Host(c.authority) == nil:
		return fail(routing.MethodNotAllowed, "CONNECT to hosts that no configuration names is not supported yet: reach them without the sidecar (no_proxy)")
	case port != plainPort:
		return fail(routing.MethodNotAllowed, "a tunnel to a provider would hide the requests: call it with http://, the sidecar adds TLS")
	}
	// RFC 9110, section 9.3.6: no Content-Length. A body stream of no length is how the server leaves it out.
	c.ctx.Response.SetBodyStream(bytes.NewReader(nil), 0)
	c.ctx.Response.Header.Del(fasthttp.HeaderContentLength)
	return nil
}

// parse finds out what the request is for. absolute says that the app used the proxy as one, naming the
// whole URL.
func (c *call) parse() (absolute bool, f *failure) {
	h := &c.ctx.Request.Header
	uri := h.RequestURI()
	c.authority = h.Host()
	if len(uri) == 0 || uri[0] != '/' {
		rest, ok := cutScheme(uri)
		if !ok {
			return false, fail(routing.InvalidRequest, "the request target is neither a path nor an http:// URL: correct the client")
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
	if _, _, ok := splitAuthority(c.authority); !ok {
		return false, fail(routing.InvalidRequest, "this is not a host with, perhaps, a port: leave out user names and other additions")
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

// ambiguous tells whether others could see the end of the body elsewhere than the server does, which
// lets a Content-Length beside chunks and the coding identity pass.
func ambiguous(h *fasthttp.RequestHeader) bool {
	length := h.ContentLength()
	if length > 0 {
		return false
	}
	other := fasthttp.HeaderTransferEncoding
	if length == -1 {
		other = fasthttp.HeaderContentLength
	}
	for line := range bytes.SplitSeq(h.RawHeaders(), []byte{'\n'}) {
		if len(line) > len(other) && line[len(other)] == ':' && bytes.EqualFold(line[:len(other)], []byte(other)) {
			return true
		}
	}
	return false
}

// splitAuthority takes apart host and port; the port is 80 where there is none.
func splitAuthority(authority []byte) (host []byte, port uint16, ok bool) {
	host, digits := authority, []byte(nil)
	if end := bytes.IndexByte(authority, ']'); len(authority) > 0 && authority[0] == '[' {
		if end < 0 {
			return nil, 0, false
		}
		if _, err := netip.ParseAddr(string(authority[1:end])); err != nil {
			return nil, 0, false
		}
		host, digits = authority[1:end], authority[end+1:]
		if len(digits) > 0 && digits[0] != ':' {
			return nil, 0, false
		}
	} else {
		if i := bytes.IndexByte(authority, ':'); i >= 0 {
			host, digits = authority[:i], authority[i:]
		}
		for _, b := range host {
			letter := 'a' <= b|0x20 && b|0x20 <= 'z' || '0' <= b && b <= '9'
			if !letter && b != '-' && b != '.' && b != '_' {
				return nil, 0, false
			}
		}
	}
	if len(digits) < 2 {
		return host, plainPort, len(host) > 0
	}
	n, err := strconv.ParseUint(string(digits[1:]), 10, 16)
	return host, uint16(n), err == nil && n > 0 && len(host) > 0
}

func tooLarge(length int) *failure {
	return fail(routing.RequestTooLarge, "the body has %d bytes, and at most %d are taken: send less", length, maxBody)
}

// readBody reads the request's body as a whole, so that it can be judged, edited and sent again.
func (c *call) readBody(in io.Reader) *failure {
	if in == nil {
		return nil
	}
	h := &c.ctx.Request.Header
	length := h.ContentLength()
	if length > maxBody {
		return tooLarge(length)
	}
	headers := 0
	if length > 0 {
		c.body = slices.Grow(c.body, min(length, keepBody)+1)
	} else if length < 0 {
		headers = h.Len()
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
		case err == io.EOF && len(c.body) >= length:
			c.read = true
			if length < 0 && h.Len() != headers {
				// The server has put them among the headers, where rules and providers would see them.
				return fail(routing.InvalidRequest, "headers follow the body as trailers: send them before it")
			}
			return nil
		case err != nil:
			return c.incomplete(err)
		}
	}
}

// incomplete says why the rest of a request did not come. What does come could be anything.
func (c *call) incomplete(err error) *failure {
	var netErr net.Error
	switch {
	case errors.As(err, &netErr) && netErr.Timeout():
		return fail(routing.RequestTimeout, "nothing of the body arrived for %s", bodyTimeout)
	case c.client.left(), errors.Is(err, io.EOF):
		return fail(routing.ClientGone, "the app left in the middle of its request").because(err)
	}
	return fail(routing.InvalidRequest, "the body is not framed as HTTP/1.1 asks: check its length or chunks")
}
