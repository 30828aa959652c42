package balance

import (
	"cmp"
	"strings"
	"sync/atomic"
	"time"
	"unique"

	"remora.dev/remora/sidecar/routing"
)

// Server is one that takes calls. It is the same one for as long as it belongs to its Group.
type Server struct {
	Address string
	Port    uint16

	handle  atomic.Pointer[unique.Handle[routing.Endpoint]]
	calls   atomic.Int64 // under way
	tokens  atomic.Int64 // that those still have to read and write
	trouble atomic.Bool  // something is known against its health
	out     atomic.Bool  // it is left alone
	born    int64        // when it came, in Unix nanoseconds; 0: it was there from the beginning

	// What follows belongs to the group's lock.
	about  routing.Server
	health Health
	gone   bool
	tier   int

	deadline float64 // of its next turn; belongs to the lock of its order
}

// place is what there is only one of among the servers of a group.
type place struct {
	address string
	port    uint16
}

func (p place) compare(o place) int {
	return cmp.Or(strings.Compare(p.address, o.address), cmp.Compare(p.port, o.port))
}

func (s *Server) place() place { return place{s.Address, s.Port} }

// Endpoint gives what to connect to, which is spoken to as base is.
func (s *Server) Endpoint(base unique.Handle[routing.Endpoint]) unique.Handle[routing.Endpoint] {
	if h := s.handle.Load(); h != nil {
		return *h
	}
	e := base.Value()
	e.Host, e.Port = s.Address, s.Port
	h := unique.Make(e)
	s.handle.Store(&h)
	return h
}

// Called gives what Endpoint gave last; called is false where nobody has asked.
func (s *Server) Called() (e unique.Handle[routing.Endpoint], called bool) {
	if h := s.handle.Load(); h != nil {
		return *h, true
	}
	return e, false
}

// Calls gives how many are under way.
func (s *Server) Calls() int64 { return s.calls.Load() }

// Tokens gives how many its calls still have to read and write, as far as that is known.
func (s *Server) Tokens() int64 { return s.tokens.Load() }

// Call is a call at a server, from Pick to End. The zero value is none: all its methods do nothing then. It may be moved, but only
// one copy of it goes on.
type Call struct {
	group  *Group
	server *Server
	tokens int64
	trial  Trial
	ended  bool // its health says no more
}

// Server is whom the call goes to; nil: there is no call.
func (c *Call) Server() *Server { return c.server }

// Probe tells whether the call is to find out whether a server that was left alone is back.
func (c *Call) Probe() bool { return c.trial.Probe }

// Remaining corrects how many tokens the call still has to read and write.
func (c *Call) Remaining(tokens int64) {
	if c.server != nil && tokens != c.tokens {
		c.server.tokens.Add(tokens - c.tokens)
		c.tokens = tokens
	}
}

// Answered says that the first byte of an answer has come that is no failure. It is true where that brings back a server that was
// left alone.
func (c *Call) Answered() bool {
	if c.server == nil || c.ended || c.trial.Answered {
		return false
	}
	c.trial.Answered = true
	return c.server.trouble.Load() && c.group.answered(c)
}

// Completed says that all of the answer has come, or all that was wanted. It is true as Answered is.
func (c *Call) Completed() bool {
	back := c.Answered()
	if c.server != nil && !c.ended {
		c.ended = true
		if c.server.trouble.Load() {
			c.group.completed(c)
		}
	}
	return back
}

// Failed says that the server did not answer, or not to the end. It gives for how long it is left alone from now on; 0 where it is not,
// or was already.
func (c *Call) Failed(f Fault, now time.Time) time.Duration {
	if c.server == nil || c.ended {
		return 0
	}
	c.ended = true
	return c.group.failed(c, f, now)
}

// End says that the call is over, however it went: its server does nothing for it any more. Where neither Completed nor Failed was
// said, nothing is known about its health by it. A second End does nothing.
func (c *Call) End() {
	if c.server == nil {
		return
	}
	if !c.ended && c.trial.Probe {
		c.group.abandoned(c)
	}
	c.server.tokens.Add(-c.tokens)
	c.server.calls.Add(-1)
	c.group.calls.Add(-1)
	*c = Call{}
}
