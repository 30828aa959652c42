package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
)

// upConn is a connection to a provider, used by one request at a time.
type upConn struct {
	net.Conn // TLS or plain
	raw      *net.TCPConn
	below    *corked // what carries TLS; nil where it is plain
	pool     *pool
	br       *bufio.Reader
	born     time.Time
	young    uint8         // how much sooner than others it is old, in 256ths of agesApart
	maxAge   time.Duration // by the last request's policy; 0: none
	maxIdle  time.Duration // likewise
	requests int           // that it has served
	most     int           // that it may serve, by the last one's policy; 0: no limit
	lastUsed time.Time
	asked    time.Time     // when the request in hand was sent
	waited   time.Duration // that request, for this connection to become free
	peer     string        // ADDRESS:PORT; made when it is asked for
	deadline time.Time     // as it was last set
	ended    error         // of the last read that failed
	reused   bool
	poll     [1]unix.PollFd // of alive, which must not allocate
	spent    bool           // the request did not go out as a whole, so no other can follow
	aborted  atomic.Bool
	flight   flight      // of the key that was sent
	revoked  atomic.Bool // aborted since that was taken away
}

// agesApart is the part of the greatest age in which connections end, so that those which began together do not all
// end together.
const agesApart = 8

func newUpConn(p *pool, raw *net.TCPConn, conn net.Conn) *upConn {
	c := &upConn{Conn: conn, raw: raw, pool: p, born: time.Now(), maxIdle: idleConnLimit, young: uint8(rand.Uint32())}
	if secured, ok := conn.(*tls.Conn); ok {
		c.below, _ = secured.NetConn().(*corked)
	}
	c.br = bufio.NewReaderSize(c, readBufferSize)
	return c
}

// Read notes why it failed: those who parse heads tell less.
func (c *upConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.ended = err
	}
	return n, err
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
	c.br = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(b), c), size)
}

// server is ADDRESS:PORT of the other end.
func (c *upConn) server() string {
	if c.peer == "" {
		c.peer = addrPort(c.raw.RemoteAddr()).String()
	}
	return c.peer
}

// usable tells whether the next request may use an idle connection.
func (c *upConn) usable(now time.Time, limits *routing.TrafficPolicy) bool {
	c.adopt(limits)
	return now.Sub(c.lastUsed) < c.maxIdle && !c.old(now) && !c.full() && c.alive()
}

// adopt has the connection follow a policy.
func (c *upConn) adopt(limits *routing.TrafficPolicy) {
	c.maxAge, c.most, c.maxIdle = limits.MaxConnectionAge, limits.MaxRequestsPerConnection, idleConnLimit
	if limits.IdleTimeout > 0 {
		c.maxIdle = min(c.maxIdle, limits.IdleTimeout)
	}
}

// full tells whether it has served as many requests as it may.
func (c *upConn) full() bool { return c.most > 0 && c.requests >= c.most }

func (c *upConn) old(now time.Time) bool {
	return c.maxAge > 0 && now.Sub(c.born) > c.maxAge-c.maxAge/(agesApart*256)*time.Duration(c.young)
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

// closing is how long after a request was sent a provider may still end the connection because it had been idle.
const closing = 250 * time.Millisecond

// unserved tells whether a request on a connection that was used before, and ended without a byte of an answer, may be
// sent again unasked.
//
// That is certain where the provider cannot have the whole of it: not even the kernel has taken all, or the provider
// ended the connection in order while some of it had not reached the provider's machine. (In order: then its kernel has
// said up to where it had received. A reset does not say that.)
//
// Else it may have been read. It was not by a provider that closed an idle connection just when the request came, but
// the same can be seen where a provider reads it and hangs up. So only inference is sent again, which changes nothing
// at the provider, and only where the end came so soon that no work can have been done on it.
func (c *upConn) unserved(o *routing.Operation) bool {
	if c.spent || errors.Is(c.ended, io.EOF) && c.unacknowledged() > 0 {
		return true
	}
	return o != nil && o.JSON && c.justAsked()
}

// justAsked tells whether the request was sent so short a time ago that the provider may have been closing the connection just then.
func (c *upConn) justAsked() bool { return time.Since(c.asked) < closing }

// unacknowledged counts the bytes that were sent and have not arrived, as far as is known.
func (c *upConn) unacknowledged() (n int) {
	if sys, err := c.raw.SyscallConn(); err == nil {
		_ = sys.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }) // 0 where it is closed
	}
	return n
}

// release gives a connection back for the next request.
func (c *upConn) release() {
	c.land()
	c.requests++
	if c.full() {
		c.drop()
		return
	}
	c.lastUsed = time.Now()
	c.endBy(time.Time{})
	c.pool.put(c)
}

// discard ends a connection that is in use.
func (c *upConn) discard() {
	c.land()
	c.drop()
}

func (c *upConn) drop() {
	_ = c.raw.Close()
	c.pool.vacate()
}
