package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// redirects holds the redirected connections that are open.
type redirects struct {
	mu       sync.Mutex
	all      map[*redirected]struct{}
	draining bool
	running  sync.WaitGroup

	dialled addresses
}

// take begins to look at a connection, which the listener does not wait for.
func (p *Proxy) take(client *net.TCPConn, to netip.AddrPort) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &redirected{proxy: p, client: client, to: to, ctx: ctx, cancel: cancel}
	p.redirects.mu.Lock()
	defer p.redirects.mu.Unlock()
	if p.redirects.draining {
		cancel()
		_ = client.Close()
		return
	}
	p.redirects.all[r] = struct{}{}
	p.redirects.running.Go(r.run)
}

// add holds a connection that the app asked to be passed on. It is false once no more are taken; else release ends it.
func (s *redirects) add(r *redirected) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining {
		s.all[r] = struct{}{}
		s.running.Add(1)
	}
	return !s.draining
}

// hold has a drain wait until release. It is false once no more are taken.
func (s *redirects) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining {
		s.running.Add(1)
	}
	return !s.draining
}

func (s *redirects) release() { s.running.Done() }

func (s *redirects) remove(r *redirected) {
	s.mu.Lock()
	delete(s.all, r)
	s.mu.Unlock()
}

// drain takes no more connections and ends those that are not decided. The channel is closed when all have ended.
func (s *redirects) drain() <-chan struct{} {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.cut(func(c course) bool { return c == sniffing })
	over := make(chan struct{})
	go func() {
		s.running.Wait()
		close(over)
	}()
	return over
}

// cut ends the connections of some courses, and says how many.
func (s *redirects) cut(which func(course) bool) int {
	s.mu.Lock()
	var some []*redirected
	for r := range s.all {
		r.mu.Lock()
		if which(r.course) {
			some = append(some, r)
		}
		r.mu.Unlock()
	}
	s.mu.Unlock()
	for _, r := range some {
		r.cut()
	}
	return len(some)
}

// addresses are those that the proxy itself calls original destinations from. A redirected connection from one of them
// goes round: the redirection does not know who the sidecar is.
type addresses struct {
	mu  sync.Mutex
	all map[netip.AddrPort]struct{}
}

func (a *addresses) add(c net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[netip.AddrPort]struct{}{}
	}
	a.all[addrPort(c.LocalAddr())] = struct{}{}
}

func (a *addresses) remove(c net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, addrPort(c.LocalAddr()))
}

func (a *addresses) has(remote net.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.all[addrPort(remote)]
	return ok
}

func addrPort(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort() // of a TCP connection, it always is
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
