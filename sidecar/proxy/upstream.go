package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
)

const (
	dialTimeout   = 10 * time.Second // connect and TLS handshake
	idleConnLimit = 60 * time.Second // how long a connection waits to be used again
	connLimit     = 1024             // connections to one endpoint
)

// pool holds the connections to one endpoint.
type pool struct {
	endpoint routing.Endpoint
	address  string
	tls      *tls.Config // nil: plain
	dialer   *net.Dialer
	forbid   func(net.Conn) bool // connections that must not be: to the proxy itself

	mu      sync.Mutex
	idle    []*upConn // the one used last is at the end
	open    int
	retired bool
}

func newPool(e routing.Endpoint, trusted *authorities, forbid func(net.Conn) bool) *pool {
	p := &pool{
		endpoint: e,
		address:  net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))),
		dialer:   &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second},
		forbid:   forbid,
	}
	if !e.TLS {
		return p
	}
	p.tls = &tls.Config{
		ServerName: e.ServerName, RootCAs: trusted.with(e.TrustedCAs), NextProtos: []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(32), MinVersion: tls.VersionTLS12,
	}
	if e.CABundle != "" {
		p.tls.RootCAs = x509.NewCertPool()
		p.tls.RootCAs.AppendCertsFromPEM([]byte(e.CABundle))
	}
	if e.ClientCert != "" {
		// Compile has seen that the two belong together.
		if cert, err := tls.X509KeyPair([]byte(e.ClientCert), []byte(e.ClientKey.Reveal())); err == nil {
			p.tls.Certificates = []tls.Certificate{cert}
		}
	}
	return p
}

// upConn is a connection to a provider, used by one request at a time.
type upConn struct {
	net.Conn // TLS or plain
	raw      *net.TCPConn
	pool     *pool
	br       *bufio.Reader
	lastUsed time.Time
	deadline time.Time // as it was last set
	reused   bool
	poll     [1]unix.PollFd // of alive, which must not allocate
	spent    bool           // the request did not go out as a whole, so no other can follow
	aborted  atomic.Bool
}

// abort ends the connection at once, without TLS's farewell, which could block.
func (c *upConn) abort() {
	c.aborted.Store(true)
	_ = c.raw.Close()
}

// endBy sets the time by which the next read or write must be done; zero means never. Writes count: a
// provider that takes in no more of a long prompt is as silent as one that does not answer.
func (c *upConn) endBy(t time.Time) {
	if !t.Equal(c.deadline) {
		c.deadline = t
		_ = c.SetDeadline(t)
	}
}

// enlarge makes room for what does not fit into the buffer.
func (c *upConn) enlarge(size int) {
	b, _ := c.br.Peek(c.br.Buffered()) // it is buffered
	c.br = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(b), c.Conn), size)
}

// alive tells whether an idle connection can still be used: the provider has neither closed it nor sent
// anything. It costs one system call and saves a request from meeting a closed connection.
func (c *upConn) alive() bool {
	sys, err := c.raw.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = sys.Control(func(fd uintptr) {
		c.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
		n, err := unix.Poll(c.poll[:], 0)
		quiet = n == 0 && err == nil
	})
	return quiet && err == nil
}

// get gives an idle connection, or a new one. fresh asks for a new one. The app's departure ends the
// dial.
func (p *pool) get(client *clientConn, fresh bool, deadline time.Time) (*upConn, *failure) {
	for !fresh {
		c := p.takeIdle()
		if c == nil {
			break
		}
		if time.Since(c.lastUsed) < idleConnLimit && c.alive() {
			c.reused = true
			return c, nil
		}
		c.discard()
	}
	p.mu.Lock()
	if p.open >= connLimit {
		p.mu.Unlock()
		f := fail(routing.Overloaded, "all %d connections to %s are in use: try again later", connLimit, p.address)
		f.retryAfter = 1
		return nil, f
	}
	p.open++
	p.mu.Unlock()
	c, f := p.dial(client, deadline)
	if f != nil {
		p.mu.Lock()
		p.open--
		p.mu.Unlock()
		return nil, f
	}
	return c, nil
}

func (p *pool) takeIdle() *upConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// cancelDial is what a departing app does to a dial.
type cancelDial context.CancelFunc

func (c cancelDial) abort() { c() }

func (p *pool) dial(client *clientConn, deadline time.Time) (*upConn, *failure) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	if !deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, deadline)
		defer stop()
	}
	if !client.attach(cancelDial(cancel)) {
		return nil, fail(routing.ClientGone, "the app has left")
	}
	defer client.attach(nil)

	conn, err := p.dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, p.dialFailure(client, err)
	}
	raw := conn.(*net.TCPConn) // of network tcp, it always is
	if p.forbid != nil && p.forbid(raw) {
		_ = raw.Close()
		return nil, fail(routing.MisdirectedRequest, "%s is this sidecar itself: give the host an address of its own", p.endpoint.Host)
	}
	c := &upConn{Conn: raw, raw: raw, pool: p}
	if p.tls != nil {
		secured := tls.Client(raw, p.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, p.handshakeFailure(client, err)
		}
		c.Conn = secured
	}
	c.br = bufio.NewReaderSize(c.Conn, readBufferSize)
	return c, nil
}

func (p *pool) dialFailure(client *clientConn, err error) *failure {
	var dns *net.DNSError
	switch {
	case client.left():
		return fail(routing.ClientGone, "the app has left")
	case isShortage(err):
		f := fail(routing.Overloaded, "the sidecar has too many connections open: try again later, or allow it more file descriptors")
		f.retryAfter = 1
		return f.because(err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fail(routing.ConnectFailure, "the name %s does not resolve: check its spelling, and the DNS", p.endpoint.Host).because(err)
	case errors.As(err, &dns):
		return fail(routing.ConnectFailure, "the name %s could not be looked up: check that the DNS server answers", p.endpoint.Host).because(err)
	}
	return fail(routing.ConnectFailure, "no connection to %s could be made: check that it is up and that the network lets the pod reach it", p.address).because(err)
}

// handshakeFailure words why a connection that was made did not become one of TLS.
func (p *pool) handshakeFailure(client *clientConn, err error) *failure {
	var cert *tls.CertificateVerificationError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case client.left():
		return fail(routing.ClientGone, "the app has left")
	case errors.As(err, &name):
		return fail(routing.UntrustedCertificate, "the certificate of %s is for another name: correct host or tls.sni of the LLMProvider", p.address).because(err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fail(routing.UntrustedCertificate, "the certificate of %s is not valid today: have it renewed, or set the clock of the node right", p.address).because(err)
	case errors.As(err, &cert):
		return fail(routing.UntrustedCertificate, "the certificate of %s is not trusted: trust its issuer with spec.tls.caBundle, the installation's trusted CAs or --trusted-ca", p.address).because(err)
	}
	return fail(routing.ConnectFailure, "%s was reached, but TLS with it failed: check port, tls.mode and tls.sni of the LLMProvider", p.address).because(err)
}

// release puts a connection back for the next request.
func (c *upConn) release() {
	p := c.pool
	c.lastUsed = time.Now()
	c.endBy(time.Time{})
	p.mu.Lock()
	if !p.retired && !c.spent && !c.aborted.Load() {
		p.idle = append(p.idle, c)
		c = nil
	}
	p.mu.Unlock()
	if c != nil {
		c.discard()
	}
}

// discard ends a connection that is in use.
func (c *upConn) discard() {
	_ = c.raw.Close()
	c.pool.mu.Lock()
	c.pool.open--
	c.pool.mu.Unlock()
}

// retire closes idle connections; those in use are closed when their request ends.
func (p *pool) retire() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.retired = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.discard()
	}
}

// sweep closes connections that have been idle for too long. It is true where none is left: then the
// pool keeps none any more either.
func (p *pool) sweep(now time.Time) (empty bool) {
	var old []*upConn
	p.mu.Lock()
	for len(p.idle) > 0 && now.Sub(p.idle[0].lastUsed) > idleConnLimit {
		old = append(old, p.idle[0])
		p.idle = p.idle[1:]
	}
	empty = p.open == len(old)
	p.retired = p.retired || empty
	p.mu.Unlock()
	for _, c := range old {
		c.discard()
	}
	return empty
}
