package proxy

import (
	"container/list"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// What a connection of a gateway's client takes while nothing goes on with it: the buffers of the server and of TLS, and a stack.
// Half of the memory may be taken so.
const (
	idleClientSize = 48 << 10
	leastClients   = 256
	// strangersPart is the part of all connections that those may be which have not brought a request yet.
	strangersPart = 4
	// lookedAt is how many connections are looked at to find one that can go.
	lookedAt = 64
)

// crowdLimit is how many connections a gateway has with so much memory: half of that, and half of the file descriptors, are for them.
func crowdLimit(memory int64) int {
	most := memory / 2 / idleClientSize
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur < math.MaxInt32 {
		most = min(most, int64(files.Cur/2))
	}
	return int(max(most, leastClients))
}

// crowd bounds how many connections a gateway's clients have. Where there are too many, one goes that has no request: the oldest of
// those that have never had one, which is what slow and idle attackers have, before any that has.
type crowd struct {
	mu        sync.Mutex
	most      int
	strangers list.List // of *clientConn that have not brought a request yet, the oldest first
	known     list.List // of the others; those that were looked at, and could not go, last
}

// place is where a connection is in the crowd.
type place struct {
	in *list.List // nil: it is in none
	at *list.Element
}

func (w *crowd) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.strangers.Len() + w.known.Len()
}

// add takes a connection in. It is false where there are too many, and all of them have requests.
func (w *crowd) add(c *clientConn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.strangers.Len() >= max(w.most/strangersPart, 1):
		if !w.drop(&w.strangers) {
			return false
		}
	case w.strangers.Len()+w.known.Len() >= w.most:
		if !w.drop(&w.strangers) && !w.drop(&w.known) {
			return false
		}
	}
	c.public.place = place{&w.strangers, w.strangers.PushBack(c)}
	return true
}

// drop ends a connection of a list that has no request.
func (w *crowd) drop(from *list.List) bool {
	for range min(lookedAt, from.Len()) {
		first := from.Front()
		c := first.Value.(*clientConn)
		if c.serving.Load() {
			from.MoveToBack(first)
			continue
		}
		from.Remove(first)
		c.public.place.in = nil
		_ = c.TCPConn.Close()
		c.depart()
		return true
	}
	return false
}

// thin ends one, if that helps: there are no file descriptors left.
func (w *crowd) thin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.drop(&w.strangers) || w.drop(&w.known)
}

// know says that a connection has brought a request.
func (w *crowd) know(c *clientConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := &c.public.place; p.in == &w.strangers {
		w.strangers.Remove(p.at)
		*p = place{&w.known, w.known.PushBack(c)}
	}
}

// remove forgets a connection that has ended.
func (w *crowd) remove(c *clientConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := &c.public.place; p.in != nil {
		p.in.Remove(p.at)
		p.in = nil
	}
}
