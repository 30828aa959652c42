package proxy

import (
	"container/list"
	"crypto/tls"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
)

const idleConnLimit = 60 * time.Second // how long a connection waits to be used again

// foreignPolicy bounds connections to hosts that no configuration names.
var foreignPolicy = routing.TrafficPolicy{
	MaxConnections: routing.DefaultMaxConnections, MaxPending: routing.DefaultMaxPending,
	ConnectTimeout: routing.DefaultConnectTimeout, MaxConnectionAge: routing.DefaultMaxConnectionAge,
}

// upstreams is what all pools have in common.
type upstreams struct {
	trusted *authorities
	forbid  func(net.Conn) bool // connections that must not be: to the proxy itself
	egress  *Egress             // nil: there is none
	log     logr.Logger

	open    atomic.Int64 // connections, with those that are being made
	waiting atomic.Int64 // requests
}

// pool holds the connections to one endpoint.
type pool struct {
	all      *upstreams
	endpoint routing.Endpoint
	address  string
	tls      *tls.Config // nil: plain
	names    *lookup     // of the endpoint, or of the proxy that leads there
	egress   *Egress     // nil: the way is direct
	served   bool        // it is that of a server, whose group says when it is to go

	// Where there is somebody in the queue, there is no idle connection, and as many are open as the one in the queue
	// may have: whoever changes that gives the queue its due before unlocking.
	mu      sync.Mutex
	idle    []*upConn // the one used last is at the end
	open    int       // with those that are being made
	queue   list.List // of *waiter
	most    int       // the highest limit in the queue
	retired bool
}

// addressOf gives host:port.
func addressOf(e routing.Endpoint) string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

func newPool(e routing.Endpoint, all *upstreams) *pool {
	p := &pool{all: all, endpoint: e, address: addressOf(e)}
	if e.TLS {
		p.tls = clientTLS(e, all.trusted)
	}
	if e.TLS && all.egress.leadsTo(e.Host, e.Port) {
		p.egress, p.names = all.egress, all.egress.names
	} else {
		p.names = &lookup{host: e.Host, queries: queries(e.Host, e.TLS), log: all.log}
	}
	return p
}

// newServerPool makes that of a server of the cluster, where no proxy is in the way.
func newServerPool(e routing.Endpoint, all *upstreams, secured *tls.Config) *pool {
	p := &pool{all: all, endpoint: e, address: addressOf(e), served: true}
	if secured != nil {
		p.tls = secured.Clone()
		p.tls.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsKept)
	}
	p.names = &lookup{host: e.Host, queries: queries(e.Host, e.TLS), log: all.log}
	return p
}

// get gives an idle connection, or a new one, or the first that becomes free where there are as many as there may be.
// fresh asks for a new one. The app's departure and the deadline end the wait and the dial.
func (p *pool) get(client *clientConn, fresh bool, deadline time.Time, limits *routing.TrafficPolicy) (*upConn, *failure) {
	now := time.Now()
	var waited time.Duration
	for {
		c, w, full := p.claim(fresh, limits)
		if full {
			return nil, p.crowded(limits)
		}
		if w != nil {
			if f := p.wait(client, w, deadline, limits); f != nil {
				return nil, f
			}
			began := now
			c, now = w.conn, time.Now()
			if waited += now.Sub(began); c != nil && !c.usable(now, limits) {
				_ = c.raw.Close()
				c = nil // its place is left
			}
		}
		if c == nil {
			break
		}
		if w != nil || c.usable(now, limits) {
			c.reused, c.waited = true, waited
			return c, nil
		}
		c.discard()
	}
	c, f := p.dial(client, deadline, limits.ConnectTimeout)
	if f != nil {
		p.vacate()
		return nil, f
	}
	c.adopt(limits)
	c.waited = waited
	return c, nil
}

// claim gives an idle connection; else the right to make one, which is nothing at all; else a place in the queue,
// unless that is full.
func (p *pool) claim(fresh bool, limits *routing.TrafficPolicy) (c *upConn, w *waiter, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 && (p.open > limits.MaxConnections || fresh && p.open == limits.MaxConnections) {
		p.dropOldest() // the limit is lower than it was, or there must be room for the new one
	}
	if n := len(p.idle); n > 0 && !fresh {
		c = p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		return c, nil, false
	}
	if p.open < limits.MaxConnections {
		p.count(1)
		return nil, nil, false
	}
	if p.queue.Len() >= limits.MaxPending {
		return nil, nil, true
	}
	return nil, p.enqueue(fresh, limits.MaxConnections), false
}

func (p *pool) dropOldest() {
	_ = p.idle[0].raw.Close()
	p.idle[0] = nil
	p.idle = p.idle[1:]
	p.count(-1)
}

func (p *pool) count(n int) {
	p.open += n
	p.all.open.Add(int64(n))
}

// put takes a connection back: for the first in the queue, or as an idle one.
func (p *pool) put(c *upConn) {
	p.mu.Lock()
	if !c.spent && !c.aborted.Load() {
		if p.queue.Len() > 0 {
			if p.hand(c) {
				c = nil
			}
		} else if !p.retired {
			p.idle = append(p.idle, c)
			c = nil
		}
	}
	p.mu.Unlock()
	if c != nil {
		c.discard()
	}
}

// vacate says that there is a connection less than there was, or was to be.
func (p *pool) vacate() {
	p.mu.Lock()
	p.count(-1)
	p.admit()
	p.mu.Unlock()
}

// retire closes idle connections; those in use, and those that the queue still gets, are closed when their request ends.
func (p *pool) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retired = true
	for len(p.idle) > 0 {
		p.dropOldest()
	}
	p.idle = nil
}

// sweep closes connections that have been idle for too long, or are too old. It is true where none is left: then the
// pool keeps none any more either.
func (p *pool) sweep(now time.Time) (empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[:0]
	for _, c := range p.idle {
		if now.Sub(c.lastUsed) <= c.maxIdle && !c.old(now) {
			kept = append(kept, c)
			continue
		}
		_ = c.raw.Close()
		p.count(-1)
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	empty = p.open == 0
	p.retired = p.retired || empty
	return empty
}

// show has the metrics tell how many connections there are, and how many requests wait for one.
func (p *Proxy) show(m *metrics.Set) {
	m.Gauge("remora_upstream_connections", func() float64 { return float64(p.upstreams.open.Load()) })
	m.Gauge("remora_requests_waiting", func() float64 { return float64(p.upstreams.waiting.Load()) })
	m.Gauge("remora_upstream_idle_connections", func() float64 {
		n := 0
		p.pools.Range(func(_, v any) bool {
			one := v.(*pool)
			one.mu.Lock()
			n += len(one.idle)
			one.mu.Unlock()
			return true
		})
		return float64(n)
	})
}
