package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"time"
)

// public is what a gateway knows of a connection that came from outside.
type public struct {
	door  *door
	place place     // in the crowd
	from  []byte    // the client's address; made when it is asked for
	tls   *tls.Conn // nil: plain
	sni   []byte
	shown []*x509.Certificate // by the client
	let   *terminal           // that was last found to let in who shows that
	heard []byte              // of a connection that is passed through: what has been read of it
	met   bool                // it has brought a request
}

// secured tells whether the connection is one of TLS, which ends here.
func (u *public) secured() bool { return u != nil && u.tls != nil }

// address gives the IP of a connection's client.
func (c *clientConn) address() []byte {
	if c.public.from == nil {
		c.public.from = addrPort(c.RemoteAddr()).Addr().WithZone("").AppendTo(nil)
	}
	return c.public.from
}

// read reads what the client says, out of TLS if it is in there.
func (c *clientConn) read(b []byte) (int, error) {
	if c.public.secured() {
		return c.public.tls.Read(b)
	}
	return c.TCPConn.Read(b)
}

// Write tells the client something.
func (c *clientConn) Write(b []byte) (int, error) {
	if c.public.secured() {
		return c.public.tls.Write(b)
	}
	return c.TCPConn.Write(b)
}

// ReadFrom is there because that of a TCP connection would go around TLS.
func (c *clientConn) ReadFrom(from io.Reader) (int64, error) {
	if c.public.secured() {
		return io.Copy(c.public.tls, from)
	}
	return c.TCPConn.ReadFrom(from)
}

// WriteTo is there because that of a TCP connection would go around TLS.
func (c *clientConn) WriteTo(to io.Writer) (int64, error) {
	if c.public.secured() {
		return io.Copy(to, c.public.tls)
	}
	return c.TCPConn.WriteTo(to)
}

// CloseWrite says that nothing more comes.
func (c *clientConn) CloseWrite() error {
	if c.public.secured() {
		_ = c.SetWriteDeadline(time.Now().Add(partingWrite))
		if err := c.public.tls.CloseWrite(); err != nil {
			return err
		}
	}
	return c.TCPConn.CloseWrite()
}

// partingWrite bounds the last word of TLS, which a client may be too slow to take.
const partingWrite = time.Second

// farewell tells a client of TLS that what it got was all.
func (c *clientConn) farewell() {
	if c.public.secured() {
		_ = c.SetWriteDeadline(time.Now().Add(partingWrite))
		_ = c.public.tls.CloseWrite() // it may be gone
	}
}

var (
	_ net.Conn      = (*clientConn)(nil)
	_ io.ReaderFrom = (*clientConn)(nil)
)
