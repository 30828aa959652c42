package proxy

import (
	"time"
	"unique"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// foreign passes on a request for a host that no configuration names, where the app used the proxy as
// one. Nothing is added, read or kept.
func (c *call) foreign(absolute bool, s *snapshot.Snapshot) *failure {
	if c.client.redirected {
		return c.misdirected(s)
	}
	if s.Table.Incomplete() {
		return unread()
	}
	if !absolute {
		return fail(routing.MisdirectedRequest, "no LLMProvider or LLMRoute names the host %s: apply one, or call the host without the sidecar", c.authority)
	}
	if !isHTTP(c.ctx.Request.Header.RequestURI()) {
		return fail(routing.InvalidRequest, "an https:// URL cannot be sent to a proxy in plain text: use CONNECT, or no proxy")
	}
	host, port, _ := splitAuthority(c.authority) // parse has seen that it can be
	h := &c.ctx.Request.Header
	out := outgoing{method: c.ctx.Method(), path: string(c.path), query: c.query, authority: string(c.authority), length: h.ContentLength()}
	if out.path == "" {
		out.path = "/"
	}
	body := c.ctx.RequestBodyStream()
	if body == nil || out.length < -1 {
		out.length = -2
	} else if !c.read {
		c.rest, c.once = body, true
	}
	if c.websocket = asksForWebSocket(h); c.websocket && out.length != -2 {
		return fail(routing.InvalidRequest, "the request for a WebSocket has a body: leave it out")
	}
	out.websocket = c.websocket
	var valid bool
	if c.head, valid = out.head(c.head[:0], h); !valid {
		return fail(routing.InvalidRequest, "a header name has a space in it: correct the client")
	}
	pool := c.proxy.pool(unique.Make(routing.Endpoint{Host: string(host), Port: port}))
	// A fresh connection, since a body that is not kept cannot be sent twice.
	conn, f := pool.get(c.client, out.length != -2 || c.websocket, time.Time{}, &foreignPolicy)
	if f != nil {
		return f
	}
	if !c.client.attach(conn) {
		conn.discard()
		return fail(routing.ClientGone, "the app has left")
	}
	var firstBy time.Time
	if err := c.deliver(conn, &segments{}, &firstBy); err != nil {
		c.client.attach(nil)
		f := c.lost(conn, err)
		conn.discard()
		return f
	}
	if c.ctx.Response.StatusCode() == fasthttp.StatusSwitchingProtocols {
		return c.join(conn)
	}
	if s := c.newStream(conn, firstBy); s != nil {
		s.start(c)
	}
	return nil
}

func unread() *failure {
	return fail(routing.ConfigurationUnread, "there is no configuration yet, or some of it has not been read, so nothing is passed on: apply an LLMProvider or LLMRoute, or correct what the log names")
}

// misdirected refuses a request for a host that no configuration names on a redirected connection, which ends here:
// its first request was for an owned host. Clients make another connection, and that one is passed on.
func (c *call) misdirected(s *snapshot.Snapshot) *failure {
	if !passes(s) {
		return unread()
	}
	c.closing = true
	return fail(routing.MisdirectedRequest, "no LLMProvider or LLMRoute names the host %s, and this connection was begun for one that is named: open another", c.authority)
}

func isHTTP(uri []byte) bool {
	rest, ok := cutScheme(uri)
	return ok && len(uri)-len(rest) == len("http://")
}

var _ fasthttp.BodyWriterTo = (*stream)(nil)
