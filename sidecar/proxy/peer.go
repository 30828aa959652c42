package proxy

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
)

// entry is a line of the kernel's table of TCP sockets.
type entry struct {
	from, to netip.AddrPort // without zones, IPv4 as such
	state    uint8
	uid      uint32
	inode    uint32 // 0: no process has it open
}

// held tells whether a process has the socket open, and has not been told that this side ended the connection. The kernel
// names user 0 for others.
func (e entry) held() bool {
	return e.inode != 0 && (e.state == unix.BPF_TCP_ESTABLISHED || e.state == unix.BPF_TCP_FIN_WAIT1 || e.state == unix.BPF_TCP_FIN_WAIT2)
}

// peerUID tells whose process made a connection that ends here, from an address of this machine to one that is where the process
// called, before any redirection. It is false where that cannot be told: the caller is not in this network namespace, is gone
// already, has bound its socket to a device, or had its port translated since it was in use for another destination.
//
// The user is the one who made the socket, whoever has it now: a process can lend its right by handing its socket on, as it
// could by passing on what it is told. Root of the pod can become any user. A caller's end and this one have their addresses to
// themselves while both are open, and this end is seen to be open after the look at the other: so no socket of somebody else
// with the same addresses, earlier or later, can be taken for it. In a pod with users of its own the numbers are those of the
// pod; users from outside of it all appear as the kernel's overflowuid, 65534.
func peerUID(c *net.TCPConn, to netip.AddrPort) (uid uint32, ok bool) {
	from, here := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
	e, err := diagnose(from, to)
	if errors.Is(err, unix.ENOENT) {
		// Gone, or the kernel has no such table: then this end is not in it either.
		if _, err = diagnose(here, from); err == nil {
			return 0, false
		}
	}
	if err != nil {
		e, err = listed(from, to)
	}
	return e.uid, err == nil && e.held() && isOpen(c)
}

// isOpen tells whether a connection has been neither reset nor closed on both sides.
func isOpen(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ctlErr := raw.Control(func(fd uintptr) { _, err = unix.Getpeername(int(fd)) })
	return ctlErr == nil && err == nil
}

// uid tells whose process the app's connection is from. It is asked for once.
func (c *clientConn) uid() (uid uint32, ok bool) {
	c.peer.Do(func() {
		to := c.to
		if !to.IsValid() {
			to = addrPort(c.LocalAddr())
		}
		c.peerUID, c.peerKnown = peerUID(c.TCPConn, to)
	})
	return c.peerUID, c.peerKnown
}

// admitted tells whether the app may use a target.
func (c *call) admitted(t *routing.Target) bool {
	if len(t.UIDs) == 0 {
		return true
	}
	if c.client.public != nil {
		return false // whose process it is is not known there, wherever it is
	}
	uid, known := c.client.uid()
	return known && t.Admits(uid)
}

func (c *call) refuseCaller() *failure {
	if c.admitted(c.target) {
		return nil
	}
	if c.client.public != nil {
		return fail(routing.CallerNotAllowed, "%s is for processes of some users only (spec.allowedUIDs), and a gateway cannot tell whose process calls: take that away, or call it from a pod with a sidecar", c.target.Provider)
	}
	who := "a user that cannot be told"
	uid, known := c.client.uid()
	if known {
		who = "user " + strconv.FormatUint(uint64(uid), 10)
	}
	f := fail(routing.CallerNotAllowed, "%s is not for processes of %s: run the caller as one of the users in its spec.allowedUIDs, or add the user there", c.target.Provider, who)
	if !known { // the next connection may have a port that has not been in use
		f.retryAfter, c.closing = 1, true
	}
	return f
}

// logCaller logs that somebody was refused, once in a while for each user.
func (p *Proxy) logCaller(what string, client *clientConn, code routing.Code, provider routing.Ref, all ...any) {
	var uid uint32
	var known bool
	if client.public == nil {
		uid, known = client.uid()
	}
	leftOut, due := p.callers.say(sparseKind{code: code, provider: provider, uid: uid, known: known}, time.Now())
	if !due {
		return
	}
	if known {
		all = append(all, "uid", uid)
	} else {
		all = append(all, "uid", "unknown")
	}
	if leftOut > 0 {
		all = append(all, "leftOut", leftOut)
	}
	p.log.Info(what, all...)
}
