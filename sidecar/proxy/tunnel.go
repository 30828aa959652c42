package proxy

import (
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
)

// errOwn is a redirected connection that would come back here.
var errOwn = errors.New("the original destination is this sidecar itself: exempt its user from the redirection")

// callAhead dials the original destination while the client is silent. Where that fails, or the destination leaves
// without a word, nothing has happened: the client may still ask for an owned host.
func (r *redirected) callAhead() {
	if !passes(r.proxy.store.Load()) {
		return
	}
	calling := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.course != sniffing {
		return
	}
	r.calling = calling
	r.copies.Go(func() {
		server, err := r.dial()
		r.mu.Lock()
		r.calling, r.failed = nil, err
		unwanted := err == nil && (r.course == served || r.course == ended)
		if err == nil && !unwanted {
			r.server = server
		}
		r.mu.Unlock()
		close(calling)
		switch {
		case unwanted:
			r.hangUp(server)
		case err == nil:
			r.bring(server)
		}
	})
}

// dial calls the original destination.
func (r *redirected) dial() (*net.TCPConn, error) {
	p := r.proxy
	if p.listensOn(r.to) || p.redirects.dialled.has(r.client.RemoteAddr()) {
		return nil, errOwn
	}
	conn, err := (&net.Dialer{Timeout: originalTimeout, KeepAlive: 30 * time.Second}).DialContext(r.ctx, "tcp", r.to.String())
	if err != nil {
		return nil, err
	}
	server := conn.(*net.TCPConn) // of network tcp, it always is
	if p.isOwn(server) {
		_ = server.Close()
		return nil, errOwn
	}
	p.redirects.dialled.add(server)
	return server, nil
}

// pass joins the client and its original destination until both have finished.
func (r *redirected) pass() {
	_ = r.client.SetReadDeadline(time.Time{})
	server, err := r.reach()
	if err != nil {
		r.setBroken() // the client learns it as it would without us
		code := routing.ConnectFailure
		if isShortage(err) {
			code = routing.Overloaded
		}
		r.proxy.log.V(1).Info("the original destination was not reached", "code", code, "destination", r.to.String(), "cause", err.Error())
		return
	}
	r.proxy.spliced.Connections.Inc()
	r.relay(server, r.client)
	r.copies.Wait()
}

// reach gives the connection to the original destination: the one that was made ahead, or a new one.
func (r *redirected) reach() (server *net.TCPConn, err error) {
	r.mu.Lock()
	calling := r.calling
	r.mu.Unlock()
	if calling != nil {
		<-calling
	}
	r.mu.Lock()
	if r.course != sniffing {
		r.mu.Unlock()
		return nil, net.ErrClosed
	}
	r.course = tunnelled
	if calling != nil {
		err = r.failed
	}
	if r.server != nil && !r.spoken && hasLeft(r.server) {
		r.hangUp(r.server) // without a word, and without one of the client's
		r.server = nil
	}
	server = r.server
	r.mu.Unlock()
	if server != nil || err != nil {
		return server, err
	}
	server, err = r.dial()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	late := r.course == ended
	if !late {
		r.server = server
		r.copies.Go(func() { r.bring(server) })
	}
	r.mu.Unlock()
	if late {
		r.hangUp(server)
		return nil, net.ErrClosed
	}
	return server, nil
}

// bring copies what the original destination sends to the client.
func (r *redirected) bring(server *net.TCPConn) {
	n, err := await(server)
	r.mu.Lock()
	switch {
	case r.server != server:
		r.mu.Unlock()
		return // it is wanted no more
	case r.course == sniffing && (n == 0 || err != nil):
		r.server = nil // it has left without a word
		r.mu.Unlock()
		r.hangUp(server)
		return
	}
	r.spoken = r.spoken || n > 0
	r.mu.Unlock()
	if err != nil {
		r.reset(r.client)
		return
	}
	r.relay(r.client, server)
}

const pieceSize = 32 << 10

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// relay brings one direction and passes its end on: an orderly one, or a reset. A direction in which nothing comes costs
// neither a buffer nor a pipe, which io.Copy would hold; and it is known which of the two sides has failed.
func (r *redirected) relay(to, from *net.TCPConn) {
	in, err := from.SyscallConn()
	if err != nil {
		return // closed
	}
	out, err := to.SyscallConn()
	if err != nil {
		return
	}
	counted := r.proxy.spliced.Sent
	if to == r.client {
		counted = r.proxy.spliced.Received
	}
	var large bulk
	for {
		var piece *[pieceSize]byte
		var n int
		var failed error
		err := in.Read(func(fd uintptr) bool {
			if large.due {
				if n, failed = large.drain(int(fd)); !large.unable {
					return !errors.Is(failed, unix.EAGAIN)
				}
				large.due = false
			}
			piece = pieces.Get().(*[pieceSize]byte)
			n, failed = read(int(fd), piece[:])
			if !errors.Is(failed, unix.EAGAIN) {
				return true
			}
			pieces.Put(piece)
			piece = nil
			return false
		})
		if err != nil {
			return // closed by us
		}
		counted.Add(n)
		switch {
		case piece == nil && n > 0:
			err = large.pump(out)
		case n > 0:
			_, err = to.Write(piece[:n])
			large.due = n == pieceSize && !large.unable
		}
		if piece != nil {
			pieces.Put(piece)
		}
		switch {
		case failed != nil, n == 0 && r.isBroken():
			r.reset(to)
			return
		case n == 0:
			_ = to.CloseWrite()
			return
		case err != nil:
			// Whoever was to get it has gone. What that side sent before is still being brought by the other direction,
			// which then meets the end, though no error: that one was told here.
			r.setBroken()
			return
		}
	}
}

// reset ends a connection without finishing.
func (r *redirected) reset(c *net.TCPConn) {
	r.setBroken()
	_ = c.SetLinger(0)
	_ = c.Close()
}

func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

func (r *redirected) isBroken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

func (r *redirected) setBroken() {
	r.mu.Lock()
	r.broken = true
	r.mu.Unlock()
}

// await waits until there is something to read, or nothing will ever be: then n is 0.
func await(c *net.TCPConn) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		n, failed = peek(int(fd), one[:])
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	return max(n, 0), err
}

// peek reads without taking anything away and without waiting.
func peek(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// hasLeft tells whether the other side of a connection will send nothing more.
func hasLeft(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	left := false
	err = raw.Control(func(fd uintptr) { left = hungUp(int(fd)) })
	return left || err != nil
}

func hungUp(fd int) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p[:], 0)
	return n > 0 && err == nil
}
