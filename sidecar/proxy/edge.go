package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// What is allowed to clients that anybody can be.
const (
	publicHeadTime  = 15 * time.Second // from the first byte of a request to the end of its headers
	publicFirstTime = 15 * time.Second // for the first byte of a connection
	// publicIdleTime is longer than what load balancers keep connections for: who of the two closes one that is idle should be the
	// one who knows that it is not about to use it.
	publicIdleTime = 620 * time.Second
	bindAgain      = time.Second // until a port that could not be had is tried again
)

// edge is the public side of a gateway. It listens where the table of the moment says, and looks nothing up by itself: each request
// asks its own snapshot.
type edge struct {
	proxy   *Proxy
	host    string // to listen on; empty: everywhere
	server  *fasthttp.Server
	crowd   crowd
	current atomic.Pointer[terminals]
	shared  *tls.Config // decides by the name that a client calls; its keys are those of all session tickets
	leaving atomic.Bool

	mu       sync.Mutex
	doors    map[uint16]*door
	troubles map[uint16]string // ports that could not be had, and why
	retry    *time.Timer       // nil: none is due
	closed   bool
}

func newEdge(p *Proxy, at netip.Addr) *edge {
	e := &edge{proxy: p, doors: map[uint16]*door{}, troubles: map[uint16]string{}}
	if !at.IsUnspecified() {
		e.host = at.String()
	}
	e.shared = &tls.Config{GetConfigForClient: e.answer, MinVersion: tls.VersionTLS12}
	e.crowd.most = crowdLimit(p.memory.total * memoryFactor)
	e.server = &fasthttp.Server{
		Handler: p.handle, ErrorHandler: p.malformed, HeaderReceived: received, ConnState: connState, ExpectHandler: p.expect, Logger: quiet{},
		ReadBufferSize: appHeadSize, ReadTimeout: publicHeadTime, IdleTimeout: publicIdleTime, MaxRequestBodySize: p.server.MaxRequestBodySize,
		StreamRequestBody: true, DisablePreParseMultipartForm: true, Concurrency: e.crowd.most + 1,
		NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true, SecureErrorLogMessage: true,
	}
	p.metrics.Gauge("remora_gateway_connections", func() float64 { return float64(e.crowd.size()) })
	p.metrics.Gauge("remora_gateway_ports", func() float64 {
		e.mu.Lock()
		defer e.mu.Unlock()
		return float64(len(e.doors))
	})
	p.metrics.Gauge("remora_gateway_ports_missing", func() float64 {
		e.mu.Lock()
		defer e.mu.Unlock()
		return float64(len(e.troubles))
	})
	return e
}

// follow has the edge listen as a configuration says. What cannot be had is logged and tried again, and stops nothing else.
func (e *edge) follow(s *snapshot.Snapshot) {
	e.current.Store(e.proxy.terminalsOf(s.Table, e.current.Load()))
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.sync(s.Table)
	}
}

// sync opens and closes doors; e.mu is held.
func (e *edge) sync(t *routing.Table) {
	for port, d := range e.doors {
		if t.Listener(port) == nil {
			delete(e.doors, port)
			d.shut()
			e.proxy.log.Info("listening no longer", "port", port)
		}
	}
	for port := range e.troubles {
		if t.Listener(port) == nil {
			delete(e.troubles, port)
		}
	}
	for _, l := range t.Listeners() {
		if e.doors[l.Port] == nil {
			e.open(l)
		}
	}
	if len(e.troubles) > 0 && e.retry == nil {
		e.retry = time.AfterFunc(bindAgain, e.tryAgain)
	}
}

func (e *edge) open(of *routing.Listener) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(e.host, strconv.Itoa(int(of.Port))))
	if err == nil {
		delete(e.troubles, of.Port)
		d := &door{Listener: l, edge: e, port: of.Port}
		e.doors[of.Port] = d
		e.proxy.listens(l.Addr())
		go d.run()
		e.proxy.log.Info("listening", "port", of.Port, "tls", of.TLS)
		return
	}
	why := reason(err)
	if e.troubles[of.Port] != why {
		e.troubles[of.Port] = why
		e.proxy.metrics.Failures(string(routing.PortConflict)).Inc()
		e.proxy.log.Info("a port cannot be listened on; it is tried again", "code", routing.PortConflict, "port", of.Port, "gateways", gatewaysOf(of), "message", why)
	}
}

// reason words why a port cannot be had.
func reason(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process has it: stop that, or give the servers of the Gateways another port"
	case errors.Is(err, syscall.EACCES):
		return "this process may not use it: set the sysctl net.ipv4.ip_unprivileged_port_start=0 for the pod, or give the servers of the Gateways a port from 1024 on"
	}
	return err.Error()
}

func gatewaysOf(l *routing.Listener) string {
	var all string
	for _, s := range l.Servers {
		if name := s.Gateway.String(); all == "" {
			all = name
		} else if len(all) < 200 && all != name {
			all = fmt.Sprintf("%s, %s", all, name)
		}
	}
	return all
}

func (e *edge) tryAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retry = nil
	if !e.closed {
		e.sync(e.proxy.store.Load().Table)
	}
}

// close listens no more. Connections are the proxy's to end.
func (e *edge) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.retry != nil {
		e.retry.Stop()
	}
	for port, d := range e.doors {
		delete(e.doors, port)
		d.shut()
	}
}

// Leave has clients of a gateway make their next connections elsewhere: each answer ends its connection. New ones are still taken,
// from whoever has not heard yet that this gateway is about to end.
func (p *Proxy) Leave() {
	if p.edge != nil {
		p.edge.leaving.Store(true)
	}
}

// door is a port of a gateway.
type door struct {
	net.Listener
	edge *edge
	port uint16
	gone atomic.Bool // the configuration has it no more
}

// run takes connections until the door is shut.
func (d *door) run() {
	p := d.edge.proxy
	for {
		c, err := d.Accept()
		switch {
		case isShortage(err):
			d.edge.crowd.thin()
			<-time.After(shortagePause)
		case err != nil:
			return // it is shut
		default:
			tcp := c.(*net.TCPConn) // of a TCP listener, it always is
			if !p.redirects.hold() {
				_ = tcp.Close()
				continue
			}
			go func() {
				defer p.redirects.release()
				d.take(tcp)
			}()
		}
	}
}

// shut closes the port, and the connections on which there is no request. Requests that are under way go on to their end, and their
// connections with them.
func (d *door) shut() {
	d.gone.Store(true)
	d.edge.proxy.listensNoMore(d.Addr())
	_ = d.Close()
	d.edge.proxy.departures.closeWhere(func(c *clientConn) bool { return c.public != nil && c.public.door == d && !c.serving.Load() })
}

// take sees a connection to its end.
func (d *door) take(tcp *net.TCPConn) {
	e := d.edge
	c, err := e.proxy.departures.watchPublic(tcp, &public{door: d})
	if err != nil {
		return
	}
	if !e.crowd.add(c) {
		e.proxy.metrics.Failures(string(routing.Overloaded)).Inc()
		_ = c.Close()
		return
	}
	defer e.crowd.remove(c)
	if l := e.current.Load().table.Listener(d.port); l != nil && l.TLS {
		behind, ok := d.handshake(c)
		switch {
		case !ok:
			_ = c.Close()
			return
		case behind != nil:
			d.pass(c, behind)
			return
		}
	}
	_ = e.server.ServeConn(c) // it has told the client
	c.hijacks.Wait()
}
