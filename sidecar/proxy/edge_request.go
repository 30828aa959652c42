package proxy

import (
	"bytes"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// ending tells whether a connection is to take no further request.
func (u *public) ending() bool { return u != nil && (u.door.gone.Load() || u.door.edge.leaving.Load()) }

// atEdge finds out who a request from outside is for. Nothing that no Gateway has is passed on.
func (c *call) atEdge() (*routing.Host, *failure) {
	u := c.client.public
	if !u.met {
		u.met = true
		u.door.edge.crowd.know(c.client)
	}
	if c.ctx.Request.Header.IsConnect() {
		c.closing = true
		return nil, fail(routing.MethodNotAllowed, "a gateway opens no tunnels: call the host itself")
	}
	if _, f := c.parse(); f != nil {
		return nil, f
	}
	c.begin(nil, c.ctx.Time())
	if dotted(c.path) {
		return nil, fail(routing.InvalidRequest, "the path has . or .. between slashes, which could lead elsewhere than it says: resolve them in the client")
	}
	server, f := c.server()
	if f != nil {
		return nil, f
	}
	if server.ToHTTPS {
		c.redirectToHTTPS()
		return nil, nil
	}
	host := server.Host(c.authority)
	switch {
	case host != nil && host.Refusal != nil:
		c.rec.isFor(host)
		return nil, fail(host.Refusal.Code, "%s", host.Refusal.Message)
	case host != nil:
		c.rec.isFor(host)
		return host, nil
	case u.door.edge.current.Load().table.Incomplete():
		return nil, unread()
	}
	return nil, c.notServed("no VirtualService or LLMRoute is bound to the host %s at this gateway: apply one whose gateways name %s, or correct the client", c.authority, server.Gateway)
}

// dotted tells whether a path has segments that servers resolve: rules, which look at the path as it is written, would be deceived.
func dotted(path []byte) bool {
	if bytes.IndexByte(path, '.') < 0 && !bytes.Contains(path, []byte("%2")) {
		return false
	}
	for segment := range bytes.FieldsFuncSeq(path, func(c rune) bool { return c == '/' || c == '\\' }) {
		segment, _, _ = bytes.Cut(segment, []byte{';'}) // some servers drop what follows it
		plain := bytes.ReplaceAll(bytes.ToLower(segment), []byte("%2e"), []byte("."))
		if string(plain) == "." || string(plain) == ".." {
			return true
		}
		if lower := bytes.ToLower(segment); bytes.Contains(lower, []byte("..%2f")) || bytes.Contains(lower, []byte("%2f..")) || bytes.Contains(lower, []byte("..%5c")) {
			return true
		}
	}
	return false
}

func (c *call) notServed(format string, args ...any) *failure {
	return fail(routing.HostNotServed, format, args...)
}

// server gives the server of a Gateway that a request is for. On a connection of TLS, that is the one whose name was called when it
// was begun: what another asks of its clients has not been asked of this one.
func (c *call) server() (*routing.EdgeServer, *failure) {
	u := c.client.public
	current := u.door.edge.current.Load()
	l := current.table.Listener(u.door.port)
	if l == nil {
		c.closing = true
		if current.table.Incomplete() {
			return nil, unread()
		}
		return nil, c.notServed("no Gateway has port %d any more", u.door.port)
	}
	server := l.Server(c.authority)
	if l.TLS != u.secured() {
		return nil, c.elsewhere("the port has changed between HTTP and HTTPS since this connection was begun: open another")
	}
	if l.TLS {
		switch own := l.Server(u.sni); {
		case own == nil:
			return nil, c.elsewhere("no Gateway has the name any more that this connection was begun for: open another")
		case own != server, own.Passthrough:
			return nil, c.elsewhere("this connection was begun for another server of the Gateways than that of %s: open one for it", c.authority)
		case own.Refusal == nil:
			if f := c.stillLetIn(own, current.of[own]); f != nil {
				return nil, f
			}
		}
	}
	if server == nil {
		return nil, c.notServed("no Gateway has a server for the host %s: correct the client, or add the host to a Gateway", c.authority)
	}
	if r := server.Refusal; r != nil {
		return nil, fail(r.Code, "%s", r.Message)
	}
	return server, nil
}

// stillLetIn refuses a client that the server would not let in now, though it, or one before it, has done so once.
func (c *call) stillLetIn(s *routing.EdgeServer, t *terminal) *failure {
	u := c.client.public
	if t == u.let {
		return nil
	}
	if t == nil || t.lets(s, u.shown) != nil {
		return c.elsewhere("the server asks for another certificate of its clients than when this connection was begun: open another")
	}
	u.let = t
	return nil
}

// elsewhere asks the client to make another connection.
func (c *call) elsewhere(format string, args ...any) *failure {
	c.closing = true
	return fail(routing.MisdirectedRequest, format, args...)
}

// redirectToHTTPS answers with the same URL at https and its own port.
func (c *call) redirectToHTTPS() {
	resp := &c.ctx.Response
	resp.Header.SetStatusCode(fasthttp.StatusMovedPermanently)
	to := append([]byte("https://"), hostOf(c.authority)...)
	resp.Header.SetBytesV(fasthttp.HeaderLocation, c.appendTarget(to, c.path))
}

// hostOf gives an authority without its port.
func hostOf(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && bytes.IndexByte(authority[i:], ']') < 0 {
		return authority[:i]
	}
	return authority
}

// appendTarget adds a path, and the query of the request.
func (c *call) appendTarget(dst, path []byte) []byte {
	if len(path) == 0 {
		path = []byte("/")
	}
	dst = append(dst, path...)
	if len(c.query) > 0 {
		dst = append(append(dst, '?'), c.query...)
	}
	return dst
}
