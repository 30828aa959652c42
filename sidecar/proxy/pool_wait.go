package proxy

import (
	"container/list"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// waiter is a request that waits for a connection.
type waiter struct {
	limit int  // connections that there may be, for this one
	fresh bool // it takes none that was used before
	place *list.Element
	ready chan struct{} // closed once it has what follows, and is in the queue no more
	conn  *upConn       // nil: it may make one
}

// enqueue is called with the lock held, as all here that says nothing else.
func (p *pool) enqueue(fresh bool, limit int) *waiter {
	w := &waiter{limit: limit, fresh: fresh, ready: make(chan struct{})}
	w.place = p.queue.PushBack(w)
	p.most = max(p.most, limit)
	return w
}

func (p *pool) dequeue(w *waiter) {
	p.queue.Remove(w.place)
	w.place = nil
	if p.queue.Len() == 0 {
		p.most = 0
	}
}

// hand gives a connection to the first in the queue who can take it, if there is one. Who has a lower limit than there
// are connections waits until there are fewer.
func (p *pool) hand(c *upConn) bool {
	if p.open > p.most {
		return false
	}
	for e := p.queue.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		if p.open > w.limit {
			continue
		}
		if w.fresh {
			return false // it gets the place of this one
		}
		p.dequeue(w)
		w.conn = c
		close(w.ready)
		return true
	}
	return false
}

// admit lets those make connections for whom there is room, first come, first served.
func (p *pool) admit() {
	for e := p.queue.Front(); e != nil && p.open < p.most; {
		w, next := e.Value.(*waiter), e.Next()
		if p.open < w.limit {
			p.dequeue(w)
			p.count(1)
			close(w.ready)
		}
		e = next
	}
}

// parting is what a departing app does to a wait for a connection.
type parting chan struct{}

func (p parting) abort() { close(p) }

// wait waits, without the lock, until there is a connection or room for one; at most as long as making one may take. A
// request that gives up leaves nothing behind: what it was just given goes to the next.
func (p *pool) wait(client *clientConn, w *waiter, deadline time.Time, limits *routing.TrafficPolicy) *failure {
	p.all.waiting.Add(1)
	defer p.all.waiting.Add(-1)
	left := make(parting)
	if !client.attach(left) {
		p.abandon(w)
		return fail(routing.ClientGone, "the app has left")
	}
	defer client.attach(nil)
	patience, last := limits.ConnectTimeout, false
	if !deadline.IsZero() {
		if until := time.Until(deadline); until < patience {
			patience, last = until, true
		}
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-w.ready:
		return nil
	case <-left:
		p.abandon(w)
		return fail(routing.ClientGone, "the app has left")
	case <-t.C:
	}
	switch {
	case !p.withdraw(w):
		return nil // it came at the last moment
	case last:
		return fail(routing.DeadlineExceeded, "no connection to %s became free within the time that the rule allows (timeouts.request)", p.address)
	}
	f := fail(routing.Overloaded, "none of the %d connections to %s became free within %s: try again later, or raise connectionPool.tcp.maxConnections of the provider's trafficPolicy",
		limits.MaxConnections, p.address, limits.ConnectTimeout)
	f.retryAfter = 1
	return f
}

func (p *pool) crowded(limits *routing.TrafficPolicy) *failure {
	f := fail(routing.Overloaded, "all %d connections to %s are in use, and %d requests wait already: try again later, or raise connectionPool of the provider's trafficPolicy",
		limits.MaxConnections, p.address, limits.MaxPending)
	f.retryAfter = 1
	return f
}

// withdraw takes a request out of the queue, without the lock. It is false where it is there no more.
func (p *pool) withdraw(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.place == nil {
		return false
	}
	p.dequeue(w)
	return true
}

// abandon ends a wait, without the lock, and passes on what it may have brought.
func (p *pool) abandon(w *waiter) {
	switch {
	case p.withdraw(w):
	case w.conn != nil:
		p.put(w.conn)
	default:
		p.vacate()
	}
}
