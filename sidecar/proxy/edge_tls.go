package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
)

const (
	handshakeTime = 10 * time.Second // for all of it
	maxServerName = 253              // as DNS has it; what is longer is nobody's
)

var (
	errPassed    = errors.New("the connection is passed through")
	errNobodys   = errors.New("no server of a Gateway has this name")
	errUnusable  = errors.New("the server of the Gateway cannot be used")
	onlyHTTP1    = []string{"http/1.1"}
	unrecognised = []byte{21, 3, 3, 0, 2, 2, 112} // the alert unrecognized_name of RFC 6066
	unusable     = []byte{21, 3, 3, 0, 2, 2, 80}  // internal_error
)

// greeting is a connection whose first words are looked at: until it is known where they lead, they are kept, and nothing is said.
type greeting struct {
	*net.TCPConn
	door    *door
	heard   []byte
	settled bool // it ends here, so that TLS goes on by itself
	mute    bool // whatever TLS has to say about that

	name   []byte
	server *routing.EdgeServer
	end    *terminal
	behind *routing.Rule // where it is passed through to
}

// Read keeps what it reads.
func (g *greeting) Read(b []byte) (int, error) {
	n, err := g.TCPConn.Read(b)
	if !g.settled {
		g.heard = append(g.heard, b[:n]...)
	}
	return n, err
}

// Write drops what is said too early.
func (g *greeting) Write(b []byte) (int, error) {
	if g.mute {
		return len(b), nil
	}
	return g.TCPConn.Write(b)
}

// handshake begins TLS, where it ends here. Else it gives the rule by which the connection is passed through, with what has been read
// of it in c.public.heard. It is false where there is nothing to go on with.
func (d *door) handshake(c *clientConn) (behind *routing.Rule, ok bool) {
	p := d.edge.proxy
	g := &greeting{TCPConn: c.TCPConn, door: d, mute: true}
	_ = c.SetDeadline(time.Now().Add(handshakeTime))
	secured := tls.Server(g, d.edge.shared)
	err := secured.HandshakeContext(context.Background())
	var other tls.RecordHeaderError
	switch {
	case err == nil:
	case errors.Is(err, errPassed):
		_ = c.SetDeadline(time.Time{})
		c.public.heard, c.public.sni = g.heard, g.name
		return g.behind, true
	case errors.Is(err, errNobodys):
		p.metrics.Failures(string(routing.HostNotServed)).Inc()
		p.log.V(1).Info("connection refused", "code", routing.HostNotServed, "port", d.port, "sni", string(g.name))
		_, _ = c.TCPConn.Write(unrecognised) // it may be gone
		return nil, false
	case errors.Is(err, errUnusable):
		d.edge.tellUnusable(g)
		_, _ = c.TCPConn.Write(unusable)
		return nil, false
	case errors.As(err, &other) && beginsPlain(g.heard):
		c.refuse(fail(routing.InvalidRequest, "this port is for HTTPS: call https://"))
		return nil, false
	default:
		p.metrics.Failures(string(routing.InvalidRequest)).Inc()
		p.log.V(1).Info("handshake failed", "code", routing.InvalidRequest, "port", d.port, "sni", string(g.name), "cause", err.Error())
		return nil, false
	}
	_ = c.SetDeadline(time.Time{})
	state := secured.ConnectionState()
	c.public.tls, c.public.sni, c.public.let = secured, g.name, g.end
	if g.end.roots != nil {
		c.public.shown = state.PeerCertificates
	}
	g.server, g.end = nil, nil
	hasten(c.TCPConn)
	return nil, true
}

// hasten acknowledges the end of the handshake at once. Nothing is left to be said that could carry that, and a client with Nagle's
// algorithm would hold its request back for 40 ms.
func hasten(c *net.TCPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	}
}

// beginsPlain tells whether a client speaks HTTP where it should begin TLS.
func beginsPlain(heard []byte) bool {
	word, _, found := bytes.Cut(heard, []byte{' '})
	if !found || len(word) == 0 || len(word) > 8 {
		return false
	}
	for _, b := range word {
		if b < 'A' || b > 'Z' {
			return false
		}
	}
	return true
}

// answer decides by its name who a client has called.
func (e *edge) answer(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	g := hello.Conn.(*greeting) // the one that handshake made
	current := e.current.Load()
	l := current.table.Listener(g.door.port)
	if l == nil || !l.TLS || len(hello.ServerName) > maxServerName {
		return nil, errNobodys
	}
	g.name = []byte(hello.ServerName)
	if _, _, ok := splitAuthority(g.name); !ok && len(g.name) > 0 {
		return nil, errNobodys // it is no name
	}
	g.server = l.Server(g.name)
	switch s := g.server; {
	case s == nil:
		return nil, errNobodys
	case s.Refusal != nil:
		return nil, errUnusable
	case s.Passthrough:
		if g.behind = s.Behind(g.name); g.behind == nil {
			return nil, errNobodys
		}
		return nil, errPassed
	}
	if g.end = current.of[g.server]; g.end == nil || g.end.config == nil {
		return nil, errUnusable
	}
	g.settled, g.mute, g.heard = true, false, nil
	return g.end.config, nil
}

// tellUnusable logs, once in a while, that there is no handshake since something is wrong with the configuration.
func (e *edge) tellUnusable(g *greeting) {
	code, message := routing.SecretInvalid, "the certificate or its key cannot be used"
	if r := g.server.Refusal; r != nil {
		code, message = r.Code, r.Message
	}
	e.proxy.metrics.Failures(string(code)).Inc()
	leftOut, due := e.proxy.callers.say(sparseKind{code: code, provider: g.server.Gateway}, time.Now())
	if !due {
		return
	}
	all := []any{"code", code, "gateway", g.server.Gateway.String(), "server", g.server.Name, "port", g.door.port, "message", message}
	if leftOut > 0 {
		all = append(all, "leftOut", leftOut)
	}
	e.proxy.log.Info("connections are refused: no handshake", all...)
}
