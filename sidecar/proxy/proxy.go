// Package proxy takes the app's HTTP requests, asks the table where they go, and brings the answers back
// event by event. It knows no Kubernetes: what to do comes from the snapshot that it loads once per
// request, and nothing that it holds between requests depends on the configuration but connections, what is known of
// providers that fail, and the budgets of retries.
package proxy

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/go-logr/logr"
	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/telemetry"
)

const (
	headTimeout    = 60 * time.Second // from the first byte of a request to the end of its headers
	bodyTimeout    = 60 * time.Second // between two pieces of a request's body
	appIdleTimeout = time.Hour        // a connection that the app keeps for later
	appHeadSize    = 16 << 10         // of a request's line and headers
	sweepInterval  = 15 * time.Second
	unusedInterval = 50 * time.Millisecond // at shutdown, between two looks for connections without a request
)

// Options is what a Proxy needs.
type Options struct {
	Store *snapshot.Store
	Log   logr.Logger
	// TrustedCAs verify providers that bring no caBundle of their own; nil means the system's.
	TrustedCAs *x509.CertPool
	// Egress is the proxy that providers with TLS are reached through; nil means that they are reached directly.
	Egress *Egress
	// Members says who the servers of Services and InferencePools are; nil means that nobody knows.
	Members *snapshot.Members
	// Metrics takes what is counted; nil means that nobody looks.
	Metrics *metrics.Set
	// Done takes the record of each request for an owned host when it is over, before the app can know that; nil means that nobody wants it.
	// It must not wait, and the record is not to be kept.
	Done func(*record.Record, *telemetry.Settings)
	// Memory is what the process may use, in bytes, of which a quarter may be buffered bodies; 0 means that it is found out.
	Memory int64
	// RedirectedOnly has connections refused that are made to a listener itself: those are served that the pod's redirection
	// turns to it.
	RedirectedOnly bool
	// Public is the address on which a gateway has the ports of its listeners, which the configuration names. Zero: it is none.
	Public netip.Addr
}

// Proxy serves apps. Make it with New.
type Proxy struct {
	store      *snapshot.Store
	log        logr.Logger
	upstreams  *upstreams
	metrics    *metrics.Set
	server     *fasthttp.Server
	departures *departures
	redirects  redirects
	ejections  *ejections
	servers    servers
	slots      slots
	keys       *keyring
	budgets    retryBudgets
	memory     *memory       // of buffered bodies
	patience   time.Duration // with a body, of which nothing comes: bodyTimeout
	accounts   accounts
	endpoints  addressBook
	mirrorings mirrorings
	refusals   refusals
	callers    sparse // that were refused
	draining   atomic.Bool
	tell       func(*record.Record, *telemetry.Settings) // of each request; nil: nobody
	inFlight   atomic.Int64                              // requests that will be told of
	captured   atomic.Int64                              // bytes that captures may take
	spliced    *metrics.Spliced
	stop       chan struct{}

	redirectedOnly bool
	edge           *edge // nil: it is no gateway

	mu    sync.Mutex
	own   map[string]bool // addresses that the proxy listens on
	pools sync.Map        // unique.Handle[routing.Endpoint] → *pool
}

// New makes a proxy that serves what the store holds at the time of each request.
func New(o Options) (*Proxy, error) {
	d, err := newDepartures()
	if err != nil {
		return nil, err
	}
	if o.Metrics == nil {
		o.Metrics = metrics.New()
	}
	p := &Proxy{
		metrics: o.Metrics, store: o.Store, log: o.Log, departures: d,
		stop: make(chan struct{}), own: map[string]bool{}, redirects: redirects{all: map[*redirected]struct{}{}},
		redirectedOnly: o.RedirectedOnly, ejections: newEjections(o.Log, o.Metrics), keys: newKeyring(o.Store, o.Log, o.Metrics),
		budgets: retryBudgets{all: map[string]*retryBudget{}},
	}
	p.tell, p.spliced = o.Done, o.Metrics.Spliced()
	p.upstreams = &upstreams{trusted: &authorities{base: o.TrustedCAs}, forbid: p.isOwn, egress: o.Egress, log: o.Log}
	p.servers.proxy, p.servers.all = p, map[groupKey]*group{}
	p.servers.follow(o.Members)
	p.show(o.Metrics)
	if o.Memory == 0 {
		o.Memory = memoryLimit()
	}
	p.memory, p.patience = newMemory(o.Memory), bodyTimeout
	o.Metrics.Gauge("remora_buffered_bytes", p.memory.inUse)
	o.Metrics.Gauge("remora_requests_in_flight", func() float64 { return float64(p.inFlight.Load()) })
	p.server = &fasthttp.Server{
		Handler: p.handle, ErrorHandler: p.malformed, HeaderReceived: received, ConnState: connState, ExpectHandler: p.expect, Logger: quiet{},
		ReadBufferSize: appHeadSize, ReadTimeout: headTimeout, IdleTimeout: appIdleTimeout,
		StreamRequestBody: true, DisablePreParseMultipartForm: true, MaxRequestBodySize: math.MaxInt, // intake knows the limits
		NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true, SecureErrorLogMessage: true,
	}
	if o.Public.IsValid() {
		p.edge = newEdge(p, o.Public)
	}
	o.Store.OnChange(p.retire)
	p.retire(o.Store.Load())
	go p.sweepPools()
	return p, nil
}

// quiet drops what fasthttp logs of connections: the proxy logs what matters by itself.
type quiet struct{}

// Printf drops its arguments.
func (quiet) Printf(string, ...any) {}

// Serve takes connections until the listener is closed. It may be called once for each of several
// listeners. They have to be bound to loopback addresses: who can reach one can spend the keys.
func (p *Proxy) Serve(l net.Listener) error {
	p.listens(l.Addr())
	return p.server.Serve(&listener{Listener: l, proxy: p})
}

// Shutdown takes no more connections and lets requests finish until ctx ends; then it cuts those that
// are left and says so. Calling it again does no harm.
func (p *Proxy) Shutdown(ctx context.Context) error {
	if !p.draining.Swap(true) {
		close(p.stop)
		if p.edge != nil {
			p.edge.close()
		}
	}
	err := p.shutdownServer(ctx, p.redirects.drain())
	passing := p.redirects.cut(func(c course) bool { return c != served })
	if cut := p.departures.closeAll() + passing; cut > 0 && err != nil {
		p.log.Info("connections cut at the end of the grace time", "code", routing.ShuttingDown, "connections", cut)
	}
	p.departures.close()
	p.pools.Range(func(_, v any) bool {
		v.(*pool).retire()
		return true
	})
	return err
}

// shutdownServer waits for requests, but for no connection that has none: clients keep some for later. It waits for
// the redirected connections too, until passed is closed.
func (p *Proxy) shutdownServer(ctx context.Context, passed <-chan struct{}) (err error) {
	ended := make(chan error, 1)
	go func() { ended <- p.server.ShutdownWithContext(ctx) }()
	tick := time.NewTicker(unusedInterval)
	defer tick.Stop()
	for ended != nil || passed != nil {
		p.departures.closeUnused()
		select {
		case err = <-ended:
			ended = nil
		case <-passed:
			passed = nil
		case <-tick.C:
			if ended == nil && ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return err
}

// listens notes an address that is the proxy's own.
func (p *Proxy) listens(at net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own[ownAddress(at)] = true
}

func (p *Proxy) listensNoMore(at net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.own, ownAddress(at))
}

// ownAddress has one form for all addresses of the machine.
func ownAddress(at net.Addr) string {
	if a, ok := at.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		return (&net.TCPAddr{IP: net.IPv6unspecified, Port: a.Port}).String()
	}
	return at.String()
}

// listensOn tells whether an address is one that the proxy listens on.
func (p *Proxy) listensOn(a netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own[a.String()]
}

// isOwn tells whether a connection has ended at the proxy itself: it would go round for ever. Of a
// listener on all addresses, the port counts where both ends are on this machine.
func (p *Proxy) isOwn(conn net.Conn) bool {
	to := conn.RemoteAddr().(*net.TCPAddr) // of a TCP connection, it always is
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own[to.String()] {
		return true
	}
	here := to.IP.IsLoopback() || to.IP.Equal(conn.LocalAddr().(*net.TCPAddr).IP)
	return here && p.own[(&net.TCPAddr{IP: net.IPv6unspecified, Port: to.Port}).String()]
}

func (p *Proxy) pool(e unique.Handle[routing.Endpoint]) *pool {
	if v, ok := p.pools.Load(e); ok {
		return v.(*pool)
	}
	v, _ := p.pools.LoadOrStore(e, newPool(e.Value(), p.upstreams))
	return v.(*pool)
}

// retire lets go of what is kept for backends and hosts that a new configuration does not have.
func (p *Proxy) retire(s *snapshot.Snapshot) {
	p.keys.adopt()
	p.retirePools(s)
	p.servers.retire(s.Table)
	p.slots.retire(s.Table)
	p.ejections.retire(s.Table)
	p.budgets.retire(s.Table)
	p.endpoints.forget()
	if p.edge != nil {
		p.edge.follow(s)
	}
}

// retirePools lets go of the connections that a new configuration has no use for. Requests that hold
// the old one finish on theirs.
func (p *Proxy) retirePools(s *snapshot.Snapshot) {
	used := s.Table.Endpoints()
	p.pools.Range(func(k, v any) bool {
		if _, ok := used[k.(unique.Handle[routing.Endpoint])]; !ok && !v.(*pool).served {
			p.pools.Delete(k)
			v.(*pool).retire()
		}
		return true
	})
}

func (p *Proxy) sweepPools() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			p.servers.sweep(now)
			p.pools.Range(func(k, v any) bool {
				if v.(*pool).sweep(now) {
					p.pools.Delete(k) // hosts that are called once must not pile up
				}
				return true
			})
		}
	}
}

// handle serves one request.
func (p *Proxy) handle(ctx *fasthttp.RequestCtx) {
	c := newCall(p, ctx)
	c.client.serving.Store(true)
	defer p.survive(c)
	f := c.serve()
	if f != nil {
		p.refuse(c, f)
		c.identify(ctx.Time())
	}
	if !c.read {
		c.keepApart() // whatever the answer is
	}
	if c.ctx.Hijacked() {
		// The server does not go on with it.
	} else if c.closing || p.draining.Load() || c.client.public.ending() || nominated(connectionOf(&ctx.Request.Header), []byte("close")) {
		ctx.SetConnectionClose()
	}
	c.conclude(f)
	c.done()
}

// survive answers a request that the proxy itself failed at. Others go on.
func (p *Proxy) survive(c *call) {
	v := recover()
	if v == nil {
		return
	}
	p.log.Error(fmt.Errorf("%v", v), "fault of the sidecar: please report it", "code", routing.InternalError, "stack", string(debug.Stack()))
	p.metrics.Failures(string(routing.InternalError)).Inc()
	c.client.depart() // ends what the request was doing
	_ = c.stopUpload()
	p.memory.arrived(&c.share)
	p.memory.give(&c.share, c.share.size)
	p.ejections.abandon(&c.trial)
	c.reclaim()
	c.ctx.Response.Reset()
	f := fail(routing.InternalError, "the sidecar failed at this request: its log says where")
	f.write(&c.ctx.Response)
	c.ctx.SetConnectionClose()
	c.conclude(f)
}

// refuse answers with a failure and logs it.
func (p *Proxy) refuse(c *call, f *failure) {
	p.metrics.Failures(string(f.code)).Inc()
	if f.code == routing.ClientGone {
		p.log.V(1).Info("the app left", "code", f.code, "host", string(c.authority))
		_ = c.client.Close()
		return
	}
	c.ctx.Response.Reset()
	f.write(&c.ctx.Response)
	if c.persisted() {
		c.ctx.Response.Header.Set(headerShouldRetry, "false")
	}
	if !c.read {
		c.keepApart()
	}
	what := "request refused"
	if f.status() >= fasthttp.StatusInternalServerError {
		what = "request failed"
	}
	all := append([]any{"status", f.status()}, c.details(f)...)
	if f.code == routing.CallerNotAllowed {
		p.logCaller(what, c.client, f.code, c.target.Provider, all...)
		return
	}
	if c.client.public != nil && f.status() < fasthttp.StatusInternalServerError {
		p.log.V(1).Info(what, all...) // whoever comes by could fill the log
		return
	}
	p.log.Info(what, all...)
}

// expected gives the host that a request is for, as far as it can be served.
func (c *call) expected() *routing.Host {
	if c.client.public == nil {
		return c.proxy.store.Load().Table.Host(c.authority)
	}
	if s, f := c.server(); f == nil {
		return s.Host(c.authority)
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// malformed answers what is not a request, or not a whole one.
func (p *Proxy) malformed(ctx *fasthttp.RequestCtx, err error) {
	ctx.SetConnectionClose()
	ctx.Conn().(*clientConn).lingering.Store(true)
	var netErr net.Error
	f := fail(routing.InvalidRequest, "this is not an HTTP/1.1 request: check what the client sends")
	switch {
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, fasthttp.ErrTimeout):
		within := headTimeout
		if ctx.Conn().(*clientConn).public != nil {
			within = publicHeadTime
		}
		f = fail(routing.RequestTimeout, "the request did not arrive within %s: send it faster, or in smaller parts", within)
	case ctx.Conn().(*clientConn).left(), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f = fail(routing.ClientGone, "the app left in the middle of its request")
	case tooSmall(err):
		f = fail(routing.InvalidRequest, "the headers are larger than %d KiB: send less", appHeadSize>>10)
	}
	told := f
	if f.code == routing.ClientGone { // who has only closed its own side still hears what was wrong
		told = fail(routing.InvalidRequest, "the request ends in its middle: check what the client sends")
	}
	told.write(&ctx.Response)
	p.metrics.Failures(string(f.code)).Inc()
	p.log.V(1).Info("malformed request", "code", f.code)
	c := newCall(p, ctx)
	defer c.done()
	c.identify(time.Now())
	c.conclude(f)
}

// connState notes when a connection has answered its request.
func connState(c net.Conn, s fasthttp.ConnState) {
	if client, ok := c.(*clientConn); ok && s == fasthttp.StateIdle {
		client.serving.Store(false)
	}
}

// received keeps the connection of a CONNECT request, on which the tunnel's requests follow: clients send
// "Connection: close" with it, and mean that there is nothing after the tunnel.
func received(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if h.IsConnect() {
		h.Del(fasthttp.HeaderConnection)
	}
	if expected := h.Peek(fasthttp.HeaderExpect); len(expected) > 0 {
		// The server takes it to the letter, and also from clients of HTTP/1.0, which do not know what 100 means.
		h.Del(fasthttp.HeaderExpect)
		if h.IsHTTP11() && bytes.EqualFold(expected, []byte("100-continue")) {
			h.Set(fasthttp.HeaderExpect, "100-continue")
		}
	}
	return fasthttp.RequestConfig{}
}

// expect answers "Expect: 100-continue": a body that is too large need not be sent at all.
func (p *Proxy) expect(ctx *fasthttp.RequestCtx) int {
	c := newCall(p, ctx)
	defer c.done()
	if _, f := c.parse(); f != nil {
		return fasthttp.StatusContinue // it is refused in a moment, with the rest of what there is to say
	}
	host := c.expected()
	length := int64(ctx.Request.Header.ContentLength())
	if host == nil || host.Refusal != nil || length <= host.MaxBody {
		return fasthttp.StatusContinue
	}
	f := tooLarge(length, host.MaxBody, limitAt(host))
	f.write(&ctx.Response)
	c.client.lingering.Store(true)
	p.metrics.Failures(string(f.code)).Inc()
	p.log.Info("request refused", append([]any{"status", f.status()}, c.details(f)...)...)
	c.operation, c.model = host.Operation(c.path)
	c.begin(host, time.Now())
	c.conclude(f)
	return f.status()
}
