package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/balance"
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
	backend   *routing.Backend   // of the current attempt
	plain     bool               // the host is any HTTP service: nothing is written into bodies
	shadow    bool               // it is a copy, for a mirror
	operation *routing.Operation // nil: none of the table's; passed on as it is where no key is sent
	model     string             // of GET .../models/NAME, with its slash
	read      bool               // the body has been read
	closing   bool               // the app's connection is not to be used again
	body      []byte             // as far as it has been taken in
	buffer    *buffer            // that body is in; nil: the call's own
	share     share              // of the memory, for body
	rest      io.Reader          // of the body, which is passed on as it arrives
	upload    *upload            // while it is
	rec       *recording         // nil: nobody wants to know, or it is no business of theirs
	websocket bool               // the connection is to become one
	document  document
	head      []byte // of the request to the provider
	deadline  time.Time
	target    *routing.Target // of the current attempt
	key       keyed           // of the target, if it has any
	mask      mask            // of the key that was sent

	level    int
	tried    uint64
	visited  []*balance.Server // of the current target and those before it
	moves    int               // to another server since one could not be reached
	promise  promise           // of tokens
	sticky   string            // the value of the cookie that the answer is to set
	attempts int               // that failed so far, and are followed by another
	made     int               // attempts that were begun
	trial    trial
	forced   bool // the current target is ejected, as all are
	budget   *retryBudget
	withheld bool // an attempt, since the budget is spent
	once     bool // the body cannot be sent a second time
	sent     bool // something of the request has gone out
	asked    bool // for usage, on behalf of an app that did not
	unasked  bool // the provider may have refused that, and is asked again without
}

var calls = sync.Pool{New: func() any { return new(call) }}

// plainPort is that of http:// URLs.
const plainPort = 80

func newCall(p *Proxy, ctx *fasthttp.RequestCtx) *call {
	c := calls.Get().(*call)
	*c = call{proxy: p, ctx: ctx, client: ctx.Conn().(*clientConn), body: c.body[:0], head: c.head[:0], visited: c.visited}
	return c
}

func (c *call) done() {
	c.forget()
	clear(c.visited) // they may be gone
	*c = call{body: c.body[:0], head: c.head[:0], visited: c.visited[:0]}
	calls.Put(c)
}

// details are what the log says of a failure: only what there is.
func (c *call) details(f *failure) []any {
	all := []any{"code", f.code, "host", string(c.authority)}
	all = append(all, origin(c.target, c.key.of)...)
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
	if c.client.public != nil {
		host, f := c.atEdge()
		if host == nil || f != nil {
			return f
		}
		return c.serveHost(host, in)
	}
	s := c.proxy.store.Load()
	if c.ctx.Request.Header.IsConnect() {
		return c.connect(s, in)
	}
	absolute, f := c.parse()
	if f != nil {
		return f
	}
	host := s.Table.Host(c.authority)
	if host == nil {
		return c.foreign(absolute, s)
	}
	c.begin(host, c.ctx.Time())
	if r := host.Refusal; r != nil {
		return fail(r.Code, "%s", r.Message)
	}
	return c.serveHost(host, in)
}

// serveHost answers a request for a host that is served.
func (c *call) serveHost(host *routing.Host, in io.Reader) *failure {
	c.operation, c.model = host.Operation(c.path)
	c.plain = host.Plain
	var otherwise *routing.Operation
	if c.operation != nil && string(c.ctx.Method()) != c.operation.Method {
		otherwise, c.operation = c.operation, nil
	}
	if f := c.upgrade(in); f != nil {
		return f
	}
	if f := c.intake(in, host); f != nil {
		return f
	}
	c.once = c.rest != nil
	model, f := c.askedModel()
	c.rec.asked(c, model)
	if f != nil {
		return f
	}
	c.rule = host.Match(matchable{c}, model)
	if c.rule == nil {
		return fail(routing.NoRuleMatches, "no rule of the %s for %s matches this request: add one without matches, or correct the request", kindOf(host), host.Name)
	}
	if f := c.refuseLength(); f != nil {
		return f
	}
	if c.rule.Timeouts.Request > 0 {
		c.deadline = time.Now().Add(c.rule.Timeouts.Request)
	}
	c.budget = c.proxy.budgets.of(host)
	c.budget.deposit()
	if a := c.rule.Action; a != nil {
		if answered, f := c.act(a); answered || f != nil {
			return f
		}
	}
	if f := c.attempt(otherwise); f != nil {
		return f
	}
	c.editAnswer()
	return nil
}

// kindOf gives the kind of what a host was made of.
func kindOf(h *routing.Host) string {
	if h.Plain {
		return "VirtualService"
	}
	return "LLMRoute"
}

// askedModel gives the model that the app asks for, as far as that can be told.
func (c *call) askedModel() (model []byte, f *failure) {
	switch o := c.operation; {
	case o == nil:
		return nil, nil
	case o.JSON && c.plain:
		return c.plainModel(), nil
	case o.JSON:
		c.document, f = scan(c.body)
		return c.document.modelValue, f
	case o.Upgrade && !c.plain:
		return queryModel(c.query)
	case o.Form && !c.plain && len(c.ctx.Request.Header.ContentEncoding()) == 0:
		return formModel(c.ctx.Request.Header.ContentType(), c.body)
	}
	return nil, nil
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
