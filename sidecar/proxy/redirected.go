package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

const (
	// silentTime is how long a client may say nothing before its original destination is called: it may be one that
	// waits to be greeted. Most clients speak at once, and many of their destinations do not exist but by name.
	silentTime = 200 * time.Millisecond
	// originalTimeout bounds a dial of the original destination. The kernel, which the client would wait for, gives
	// up after about two minutes.
	originalTimeout = 2 * time.Minute
)

// redirected is a connection that the app made to somewhere else. Its client's first bytes are looked at where they
// are, in the kernel; so whoever gets the connection then, the server or the original destination, reads all of them,
// and a client that says nothing costs no buffer.
type redirected struct {
	proxy  *Proxy
	client *net.TCPConn
	to     netip.AddrPort
	ctx    context.Context // ends with the connection, and ends dials
	cancel context.CancelFunc
	copies sync.WaitGroup // goroutines that bring what the original destination sends

	mu      sync.Mutex
	course  course
	server  *net.TCPConn  // the original destination, once it has answered
	calling chan struct{} // while it is being called ahead of the client's first bytes
	failed  error         // why it could not be called ahead
	spoken  bool          // it has sent something, which the client has got
	broken  bool          // one side has ended the connection without finishing
}

// course is what has become of a redirected connection.
type course int

const (
	sniffing  course = iota
	served           // the server has it
	tunnelled        // it goes on to its original destination
	ended
)

// run decides what the connection is, and sees it to its end.
func (r *redirected) run() {
	defer r.end()
	switch r.judge() {
	case owned:
		r.serve()
	case foreign, alien:
		r.pass()
	default:
		return
	}
}

// judge waits until the client has said enough. Undecided means that there is nothing to go on with.
func (r *redirected) judge() verdict {
	wait := func(d time.Duration) { _ = r.client.SetReadDeadline(time.Now().Add(d)) }
	wait(silentTime)
	called := false
	for seen := 0; ; {
		v, n, err := r.look(seen)
		switch late := errors.Is(err, os.ErrDeadlineExceeded); {
		case v != undecided:
			return v
		case late && seen == 0 && !called:
			called = true
			r.callAhead()
			wait(appIdleTimeout)
		case late && seen > 0:
			r.refuse(fail(routing.RequestTimeout, "the request did not arrive within %s", headTimeout))
			return undecided
		case errors.Is(err, io.EOF) && n == 0 && passes(r.proxy.store.Load()):
			return alien // it will never say anything, and may be waiting to be told something
		case errors.Is(err, io.EOF) && n > 0:
			return owned // half a request: the server says so
		case err != nil:
			return undecided
		case seen == 0:
			wait(r.proxy.server.ReadTimeout)
		}
		seen = max(seen, n)
	}
}

var heads = sync.Pool{New: func() any { return new([appHeadSize]byte) }}

// look waits for more than the bytes that were there the last time, and judges what there is. io.EOF says that
// no more will come. None are taken off the connection.
func (r *redirected) look(seen int) (v verdict, n int, err error) {
	raw, err := r.client.SyscallConn()
	if err != nil {
		return undecided, 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf := heads.Get().(*[appHeadSize]byte)
		defer heads.Put(buf)
		// A client that has closed its side without a word is told from one that waits by what peek returns; one
		// that has closed it after some, by asking before: what comes later wakes this up again.
		closed := seen > 0 && hungUp(int(fd))
		n, failed = peek(int(fd), buf[:])
		switch {
		case errors.Is(failed, unix.EAGAIN):
			n, failed = 0, nil
			return false
		case failed != nil || n == 0:
			return true
		case n > seen:
			v = r.verdict(buf[:n])
			return true
		}
		if closed {
			failed = io.EOF
		}
		return closed
	})
	switch {
	case err != nil:
		return undecided, n, err
	case failed == nil && n == 0:
		return undecided, 0, io.EOF
	}
	return v, n, failed
}

// verdict is what sniff says, as far as the configuration lets connections pass.
func (r *redirected) verdict(b []byte) verdict {
	s := r.proxy.store.Load()
	v := sniff(b, s.Table)
	switch {
	case v == undecided && len(b) == appHeadSize:
		return owned // the server says that this is too much
	case passes(s):
	case v == foreign:
		return owned // the server says why it cannot pass
	case v == alien:
		r.proxy.log.V(1).Info("connection closed", "code", routing.ConfigurationUnread, "destination", r.to.String())
		return forbidden
	}
	return v
}

// passes tells whether what is nobody's may leave: only if it is known what is somebody's.
func passes(s *snapshot.Snapshot) bool { return s.Ready && !s.Table.Incomplete() }

// serve hands the connection to the server.
func (r *redirected) serve() {
	r.mu.Lock()
	usable, spoken, server := r.course == sniffing && !r.spoken, r.spoken, r.server
	if usable {
		r.course, r.server = served, nil
	}
	r.mu.Unlock()
	if !usable {
		if spoken {
			r.proxy.log.V(1).Info("connection closed: a request for an owned host follows what another server has said",
				"code", routing.MisdirectedRequest, "destination", r.to.String())
		}
		return
	}
	r.cancel()
	r.hangUp(server)
	_ = r.client.SetReadDeadline(time.Time{})
	c, err := r.proxy.departures.watch(r.client)
	if err != nil {
		return
	}
	c.redirected, c.to = true, r.to
	_ = r.proxy.server.ServeConn(c) // it has told the client
	c.hijacks.Wait()
}

// refuse answers what has not become a request.
func (r *redirected) refuse(f *failure) {
	r.mu.Lock()
	usable := r.course == sniffing && !r.spoken
	r.mu.Unlock()
	if !usable {
		return
	}
	c, err := r.proxy.departures.watch(r.client)
	if err != nil {
		return
	}
	c.refuse(f)
	_ = c.Close()
	r.proxy.log.V(1).Info("malformed request", "code", f.code)
}

// hangUp closes a connection to an original destination.
func (r *redirected) hangUp(server *net.TCPConn) {
	if server != nil {
		r.proxy.redirects.dialled.remove(server)
		_ = server.Close()
	}
}

// end closes what is left, and waits until nothing of the connection runs any more.
func (r *redirected) end() {
	r.cut()
	r.copies.Wait()
	r.proxy.redirects.remove(r)
}

// cut ends the connection at once.
func (r *redirected) cut() {
	r.cancel()
	r.mu.Lock()
	server, broken := r.server, r.broken
	r.course, r.server = ended, nil
	r.mu.Unlock()
	if broken {
		_ = r.client.SetLinger(0)
		if server != nil {
			_ = server.SetLinger(0)
		}
	}
	_ = r.client.Close()
	r.hangUp(server)
}
