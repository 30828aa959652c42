package proxy

import (
	"io"
	"net"
	"strconv"
	"time"
	"unique"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// foreign passes on a request for a host that no configuration names, where the app used the proxy as
// one. Nothing is added, read or kept.
func (c *call) foreign(absolute, incomplete bool) *failure {
	if incomplete {
		return fail(routing.ConfigurationUnread, "some configuration has not been read yet, so nothing is passed on: correct it (sidecar check names the faults) and try again")
	}
	if !absolute {
		return fail(routing.MisdirectedRequest, "no LLMProvider or LLMRoute names the host %s: apply one, or call the host without the sidecar", c.authority)
	}
	if !isHTTP(c.ctx.Request.Header.RequestURI()) {
		return fail(routing.InvalidRequest, "an https:// URL cannot be sent to a proxy in plain text: use CONNECT, or no proxy")
	}
	host, port, err := net.SplitHostPort(string(c.authority))
	if err != nil {
		host, port = string(c.authority), "80"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fail(routing.InvalidRequest, "%q is not a port", port)
	}
	h := &c.ctx.Request.Header
	out := outgoing{method: c.ctx.Method(), path: string(c.path), query: c.query, authority: string(c.authority), length: h.ContentLength()}
	if out.path == "" {
		out.path = "/"
	}
	body := c.ctx.RequestBodyStream()
	if body == nil || out.length < -1 {
		out.length = -2
	}
	var valid bool
	if c.head, valid = out.head(c.head[:0], h); !valid {
		return fail(routing.InvalidRequest, "a header name has a space in it: correct the client")
	}
	pool := c.proxy.pool(unique.Make(routing.Endpoint{Host: host, Port: uint16(n)}))
	// A fresh connection, since a body that is not kept cannot be sent twice.
	conn, f := pool.get(c.client, out.length != -2, time.Time{})
	if f != nil {
		return f
	}
	if !c.client.attach(conn) {
		conn.discard()
		return fail(routing.ClientGone, "the app has left")
	}
	err = send(conn, &c.head, &segments{})
	if err == nil && out.length != -2 {
		err = c.copyBody(conn, body, out.length == -1)
	}
	if err == nil {
		err = readHead(&c.ctx.Response.Header, conn)
	}
	if err != nil {
		c.client.attach(nil)
		f := c.lost(conn, err, time.Time{})
		conn.discard()
		c.ctx.Response.Reset()
		return f
	}
	c.read = out.length == -2 || c.read
	if !c.read {
		c.ctx.SetConnectionClose()
	}
	if s := c.newStream(conn, time.Time{}); s != nil {
		s.start(&c.ctx.Response)
	}
	return nil
}

func isHTTP(uri []byte) bool {
	rest, ok := cutScheme(uri)
	return ok && len(uri)-len(rest) == len("http://")
}

// copyBody passes a body on as it comes.
func (c *call) copyBody(conn *upConn, body io.Reader, chunked bool) error {
	buf := make([]byte, 16<<10)
	for {
		_ = c.client.SetReadDeadline(time.Now().Add(bodyTimeout))
		n, err := body.Read(buf)
		if n > 0 {
			var werr error
			if chunked {
				piece := strconv.AppendInt(nil, int64(n), 16)
				piece = append(append(append(piece, "\r\n"...), buf[:n]...), "\r\n"...)
				_, werr = conn.Write(piece)
			} else {
				_, werr = conn.Write(buf[:n])
			}
			if werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			c.read = true
			if chunked {
				_, err = conn.Write([]byte("0\r\n\r\n"))
				return err
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var _ fasthttp.BodyWriterTo = (*stream)(nil)
