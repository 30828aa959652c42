package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// departures tells when an app's side of a connection is closed, also while nobody reads from it: a
// request whose app is gone still costs tokens. One epoll instance watches all connections for
// EPOLLRDHUP, edge-triggered, so a request costs no system call here. Half-closing counts as leaving.
type departures struct {
	epoll *os.File
	fd    int

	mu    sync.Mutex
	next  uint64
	conns map[uint64]*clientConn
}

func newDepartures() (*departures, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	// os.NewFile has Go's own poller watch this epoll, so that waiting for it takes no thread.
	d := &departures{epoll: os.NewFile(uintptr(fd), "departures"), fd: fd, conns: map[uint64]*clientConn{}}
	go d.run()
	return d, nil
}

func (d *departures) run() {
	raw, err := d.epoll.SyscallConn()
	if err != nil {
		return // closed already
	}
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return // closed
		}
		for _, e := range events[:n] {
			d.mu.Lock()
			c := d.conns[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32]
			d.mu.Unlock()
			if c != nil {
				c.depart()
			}
		}
	}
}

// watch wraps a connection of an app.
func (d *departures) watch(tcp *net.TCPConn) (*clientConn, error) { return d.watchPublic(tcp, nil) }

// watchPublic wraps one of a gateway's clients.
func (d *departures) watchPublic(tcp *net.TCPConn, as *public) (*clientConn, error) {
	c := &clientConn{TCPConn: tcp, departures: d, public: as}
	d.mu.Lock()
	d.next++
	c.token = d.next
	d.conns[c.token] = c
	d.mu.Unlock()
	raw, err := tcp.SyscallConn()
	if err == nil {
		e := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(uint32(c.token)), Pad: int32(uint32(c.token >> 32))}
		if ctlErr := raw.Control(func(fd uintptr) { err = unix.EpollCtl(d.fd, unix.EPOLL_CTL_ADD, int(fd), &e) }); ctlErr != nil {
			err = ctlErr
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("watching a connection: %w", err)
	}
	return c, nil
}

func (d *departures) forget(c *clientConn) {
	d.mu.Lock()
	delete(d.conns, c.token)
	d.mu.Unlock()
}

// closeAll ends every connection that is left.
func (d *departures) closeAll() int {
	return d.closeWhere(func(c *clientConn) bool {
		c.evicted.Store(true)
		return true
	})
}

// closeUnused ends the connections without a request: idle ones, and those on which less than a head has come.
func (d *departures) closeUnused() int {
	return d.closeWhere(func(c *clientConn) bool { return !c.serving.Load() })
}

func (d *departures) closeWhere(which func(*clientConn) bool) int {
	d.mu.Lock()
	conns := make([]*clientConn, 0, len(d.conns))
	for _, c := range d.conns {
		if which(c) {
			conns = append(conns, c)
		}
	}
	d.mu.Unlock()
	for _, c := range conns {
		_ = c.TCPConn.Close()
		c.depart()
	}
	return len(conns)
}

func (d *departures) close() { _ = d.epoll.Close() }

// aborter is something that a departing app ends: a connection to a provider, a dial, a wait.
type aborter interface{ abort() }

// clientConn is a connection of an app.
type clientConn struct {
	*net.TCPConn
	departures *departures
	token      uint64
	lingering  atomic.Bool // more of a refused request may be on its way

	hijacks sync.WaitGroup // what goes on with the connection after the server has let go of it

	redirected bool           // it was made to somewhere else; what is nobody's here has no business on it
	to         netip.AddrPort // there

	public *public // nil: it is not one of a gateway's clients

	peer      sync.Once // for uid
	peerUID   uint32
	peerKnown bool

	evicted atomic.Bool // the sidecar is ending
	serving atomic.Bool // the head of a request has come, and it has not been answered

	mu      sync.Mutex
	gone    bool
	current aborter
}

// Read also notes that a head has come: a small body is awaited before the handler is called, and a request that is
// still arriving is one to be waited for.
func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	if !c.serving.Load() && bytes.Contains(b[:n], endOfHead) {
		c.serving.Store(true)
	}
	return n, err
}

var endOfHead = []byte("\r\n\r\n")

// depart ends what the connection's request is doing. It is called once or twice: for a half-close and
// for what follows it.
func (c *clientConn) depart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.current != nil {
		c.current.abort()
		c.current = nil
	}
}

// attach names what is to be ended when the app leaves; nil is nothing. It is false if the app has left.
// Once attach has returned, what was named before will not be aborted any more.
func (c *clientConn) attach(a aborter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = nil
	if !c.gone {
		c.current = a
	}
	return !c.gone
}

// left tells whether the app has gone.
func (c *clientConn) left() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// refuse answers a connection that the server has not got: it is to be closed.
func (c *clientConn) refuse(f *failure) {
	var answer fasthttp.Response
	f.write(&answer)
	answer.SetConnectionClose()
	_, _ = answer.WriteTo(c) // nobody may be there to get it
	c.lingering.Store(true)  // what was looked at, or still comes, has not been read
}

// Close ends the connection. Closing one with unread bytes resets it, and the app might lose the answer
// that says why its request was refused; so what is still coming is taken in first.
func (c *clientConn) Close() error {
	if !c.lingering.Swap(false) {
		c.farewell()
	} else if c.CloseWrite() == nil {
		buf := make([]byte, 16<<10)
		for taken := 0; taken < lingerLimit; {
			_ = c.SetReadDeadline(time.Now().Add(lingerTime))
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			taken += n
		}
	}
	c.departures.forget(c)
	return c.TCPConn.Close()
}

const (
	lingerTime  = 2 * time.Second // between two pieces
	lingerLimit = 256 << 20
)

// listener hands out watched connections, but for redirected ones and those that are refused, which the proxy takes.
type listener struct {
	net.Listener
	proxy *Proxy
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if isShortage(err) {
			<-time.After(shortagePause) // the server would give up for good
			continue
		}
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			_ = c.Close()
			return nil, fmt.Errorf("listener on %s: %w", l.Addr(), syscall.EPROTONOSUPPORT)
		}
		to, redirected := originalDestination(tcp)
		switch {
		case l.proxy.isDirect(to, redirected):
			l.proxy.turnAway(tcp)
		case redirected:
			l.proxy.take(tcp, to)
		default:
			if watched, err := l.proxy.departures.watch(tcp); err == nil {
				return watched, nil
			}
		}
	}
}

const shortagePause = 50 * time.Millisecond

// isShortage tells whether a connection could not be accepted for reasons that pass.
func isShortage(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
