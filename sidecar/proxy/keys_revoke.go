package proxy

import (
	"time"

	"remora.dev/remora/sidecar/routing"
)

// flight is a connection's part in the list of those that a key was sent on, for as long as an answer may be under way.
type flight struct {
	key        *namedKey // nil: it is in no list
	next, prev *upConn
}

// board begins to use a key on a connection. It is false where the key has not that value any more.
func (c *namedKey) board(conn *upConn, v *keyValue) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Load() != v {
		return false
	}
	conn.flight = flight{key: c, next: c.flights}
	if c.flights != nil {
		c.flights.flight.prev = conn
	}
	c.flights = conn
	return true
}

// land says that nothing is under way on the connection any more.
func (c *upConn) land() {
	key := c.flight.key
	if key == nil {
		return
	}
	key.mu.Lock()
	f := c.flight
	if f.prev != nil {
		f.prev.flight.next = f.next
	} else {
		key.flights = f.next
	}
	if f.next != nil {
		f.next.flight.prev = f.prev
	}
	c.flight = flight{}
	last := key.flights == nil && key.current.Load() == nil
	key.mu.Unlock()
	if last {
		key.keys.forget(key)
	}
}

// revoke says that the key was taken away, and tells how many answers are under way with it.
func (c *namedKey) revoke() (answers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.current.Swap(nil)
	c.keys.rests.forget(was.rest)
	c.since = time.Now()
	for conn := c.flights; conn != nil; conn = conn.flight.next {
		answers++
	}
	c.keys.log.Info("a key was taken away: it is not sent any more", "code", routing.KeyRevoked,
		"provider", c.id.Provider.String(), "key", c.id.Name, "answers", answers, "cut", c.grace())
	c.cutDue()
	return answers
}

// grace says in words what becomes of the answers under way.
func (c *namedKey) grace() string {
	if c.revokedFor < 0 {
		return "never"
	}
	return "after " + c.revokedFor.String()
}

// cutDue cuts the answers whose time without their key is over, or waits for that. It is called with the lock held.
func (c *namedKey) cutDue() {
	if c.revokedFor < 0 || c.flights == nil {
		return
	}
	if left := c.revokedFor - time.Since(c.since); left > 0 {
		c.cutting = time.AfterFunc(left, c.cutLater)
		return
	}
	for conn := c.flights; conn != nil; conn = conn.flight.next {
		if !conn.revoked.Swap(true) {
			conn.abort()
		}
	}
}

func (c *namedKey) cutLater() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Load() == nil {
		c.cutDue()
	}
}

// spare ends the wait for more to cut. It is called with the lock held.
func (c *namedKey) spare() {
	if c.cutting != nil {
		c.cutting.Stop()
		c.cutting = nil
	}
}

// keyRevoked is what an app is told whose answer was cut.
func keyRevoked(c *namedKey) *failure {
	return fail(routing.KeyRevoked, "the key of %s with which this was asked (%s) was taken away: ask again", c.id.Provider, c.id.Name)
}
