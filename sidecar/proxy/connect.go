package proxy

import (
	"bytes"
	"context"
	"io"
	"time"
	"unique"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// connect opens a tunnel. One to an owned host ends here: what comes through it is plain HTTP, and every
// request of it is judged like any other. Some clients (undici's ProxyAgent is one) ask for a tunnel even
// where the URL is http://. One to a host that no configuration names leads there, and nobody looks into it.
func (c *call) connect(s *snapshot.Snapshot, body io.Reader) *failure {
	c.authority = c.ctx.Request.Header.RequestURI()
	host, port, ok := splitAuthority(c.authority)
	owned := s.Table.Host(c.authority)
	switch {
	case !ok, bytes.IndexByte(c.authority, ':') < 0:
		return fail(routing.InvalidRequest, "the request target of CONNECT must be a host and a port")
	case body != nil && c.ctx.Request.Header.ContentLength() != 0:
		return fail(routing.InvalidRequest, "a CONNECT request has no body: correct the client")
	case owned == nil && c.client.redirected:
		return c.misdirected(s)
	case owned == nil:
		return c.tunnel(string(host), port, s)
	case port != plainPort:
		return fail(routing.MethodNotAllowed, "a tunnel to a provider would hide the requests: call it with http://, the sidecar adds TLS")
	}
	// RFC 9110, section 9.3.6: no Content-Length. A body stream of no length is how the server leaves it out.
	c.ctx.Response.SetBodyStream(bytes.NewReader(nil), 0)
	c.ctx.Response.Header.Del(fasthttp.HeaderContentLength)
	return nil
}

// tunnel joins the app's connection to one of a host that no configuration names.
func (c *call) tunnel(host string, port uint16, s *snapshot.Snapshot) *failure {
	if !passes(s) {
		return unread()
	}
	conn, f := c.proxy.pool(unique.Make(routing.Endpoint{Host: host, Port: port})).get(c.client, true, time.Time{}, &foreignPolicy)
	if f != nil {
		return f
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &redirected{proxy: c.proxy, client: c.client.TCPConn, server: conn.raw, course: tunnelled, ctx: ctx, cancel: cancel}
	if !c.proxy.redirects.add(r) {
		cancel()
		conn.discard()
		return fail(routing.ShuttingDown, "the sidecar is ending: connect again")
	}
	c.proxy.spliced.Connections.Inc()
	p := c.proxy // the call is over when the tunnel begins
	p.redirects.dialled.add(conn.raw)
	p.departures.forget(c.client) // a side may finish before the other does
	c.hijack([]byte("HTTP/1.1 200 Connection established\r\n\r\n"), func(early []byte) {
		defer p.redirects.release()
		defer conn.discard()
		defer r.end()
		if len(early) > 0 {
			p.spliced.Sent.Add(len(early))
			if _, err := conn.raw.Write(early); err != nil {
				r.setBroken()
				return
			}
		}
		r.copies.Go(func() { r.bring(conn.raw) })
		r.relay(conn.raw, r.client)
		r.copies.Wait()
	})
	return nil
}
