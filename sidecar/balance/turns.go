package balance

import (
	"container/heap"
	"sync"
	"sync/atomic"
)

// order is whose turn it is in a set.
type order struct {
	count atomic.Uint64 // of turns

	mu   sync.Mutex
	of   *view
	line line
	at   float64 // the deadline of the turn taken last
}

// turn takes the servers one after the other.
func (o *order) turn(p *picker, among []*Server) *Server {
	if o.count.Load() == 0 {
		o.count.CompareAndSwap(0, p.q.Draw>>1) // not every process begins with the same server
	}
	for range among {
		if s := among[o.count.Add(1)%uint64(len(among))]; !p.q.tried(s) {
			return s
		}
	}
	return nil
}

// next takes the servers in turns that come the more often the more weight they have, evenly spread: the one whose turn is due first,
// after which it has another in 1/weight.
func (o *order) next(p *picker, among []*Server) *Server {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of != p.v || len(o.line) != len(among) {
		o.of = p.v
		o.line = append(o.line[:0], among...)
		for _, s := range o.line {
			if period := 1 / p.v.weight(s, p.now); s.deadline < o.at || s.deadline > o.at+period {
				s.deadline = o.at + period*p.r.share()
			}
		}
		heap.Init(&o.line)
	}
	var passed []*Server
	var found *Server
	for found == nil && len(o.line) > 0 {
		if s := o.line[0]; p.q.tried(s) {
			passed = append(passed, heap.Pop(&o.line).(*Server))
		} else {
			found = s
		}
	}
	if found != nil {
		o.at = max(o.at, found.deadline)
		found.deadline = o.at + 1/p.v.weight(found, p.now)
		heap.Fix(&o.line, 0)
	}
	for _, s := range passed {
		heap.Push(&o.line, s)
	}
	return found
}

// line is servers by their deadlines, as a heap.
type line []*Server

func (l line) Len() int           { return len(l) }
func (l line) Less(i, j int) bool { return l[i].deadline < l[j].deadline }
func (l line) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }

// Push adds one at the end.
func (l *line) Push(s any) { *l = append(*l, s.(*Server)) }

// Pop takes the last.
func (l *line) Pop() any {
	last := len(*l) - 1
	s := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	return s
}
