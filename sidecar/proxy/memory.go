package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"remora.dev/remora/sidecar/routing"
)

const (
	freeBody     = 16 << 10 // a buffer up to this size is not counted: a request costs more than that anyway
	memoryWait   = 30 * time.Second
	memoryQueue  = 1024            // requests that wait at the same time
	slowAfter    = 5 * time.Second // since a body began to arrive, and between two looks at the slow ones
	slowPace     = 32 << 10        // bytes per second: what arrives more slowly is slow
	leastMemory  = 1 << 20
	memoryFactor = 4 // bodies may take this part of what the process may use
)

// memory is what the bodies of all requests may take together while they are buffered. Requests that find no room
// wait for it in the order in which they came, for memoryWait at most.
//
// Why nobody waits for ever: a body whose length is announced asks for all of it before the first byte, so that it never
// waits while it holds something. The others (in chunks, or compressed) must ask again as they grow, and would wait for each
// other once they held everything. They go first, since what has begun ends soonest; and when all that is taken is
// held by such as wait for more, the one that came last is refused at once, which gives room to the one that came first. So
// whenever somebody waits, some of what is taken is held by one that does not, which is one of two. Either its body has arrived:
// then the time limits of its rule bound how long it is kept. Or it is arriving: then it ends, or it comes more
// slowly than slowPace, and is refused because others wait.
type memory struct {
	total int64
	wait  time.Duration
	slow  time.Duration

	mu        sync.Mutex
	used      int64
	parked    int64     // of it, held by those in growing
	growing   []*asking // who holds something already
	arriving  []*asking
	receiving map[*share]struct{}
}

// share is what one request has of it. The zero value is none.
type share struct {
	size    int64
	client  *clientConn  // while its body is arriving
	asking  bool         // for more of it
	begun   time.Time    // when it began to arrive, or went on
	got     atomic.Int64 // bytes since then
	evicted atomic.Bool
}

// asking is a request that waits.
type asking struct {
	share   *share
	size    int64
	granted bool
	decided chan struct{}
}

func newMemory(limit int64) *memory {
	return &memory{total: max(limit/memoryFactor, leastMemory), wait: memoryWait, slow: slowAfter, receiving: map[*share]struct{}{}}
}

// inUse gives the bytes that are buffered, or about to be.
func (m *memory) inUse() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return float64(m.used)
}

// take adds to a share, waiting for it if need be. The app's departure ends the wait.
func (m *memory) take(s *share, size int64, client *clientConn) *failure {
	m.mu.Lock()
	if s.size+size > m.total {
		m.mu.Unlock()
		return fail(routing.RequestTooLarge, "the body takes %d bytes of memory, and all bodies together may take %d here: send less, or raise the sidecar's memory limit", s.size+size, m.total)
	}
	queue := &m.arriving
	if s.size > 0 {
		queue = &m.growing
	}
	if len(m.growing) == 0 && (s.size > 0 || len(m.arriving) == 0) && m.used+size <= m.total {
		m.used += size
		s.size += size
		m.mu.Unlock()
		return nil
	}
	if len(m.growing)+len(m.arriving) >= memoryQueue {
		m.mu.Unlock()
		return crowded()
	}
	s.asking = true
	a := &asking{share: s, size: size, decided: make(chan struct{})}
	*queue = append(*queue, a)
	m.parked += s.size
	m.settle()
	m.mu.Unlock()
	return m.await(a, client)
}

func crowded() *failure {
	f := fail(routing.Overloaded, "the bodies of other requests take all the memory that the sidecar has for them: try again later, or raise its memory limit")
	f.retryAfter = 1
	return f
}

func (m *memory) await(a *asking, client *clientConn) *failure {
	gone := make(waiting)
	if !client.attach(gone) {
		return m.withdraw(a, fail(routing.ClientGone, "the app has left"))
	}
	defer client.attach(nil)
	limit, look := time.NewTimer(m.wait), time.NewTicker(m.slow)
	defer limit.Stop()
	defer look.Stop()
	for {
		select {
		case <-a.decided:
			if a.granted {
				return nil
			}
			return crowded()
		case <-look.C:
			m.evict()
		case <-gone:
			return m.withdraw(a, fail(routing.ClientGone, "the app has left"))
		case <-limit.C:
			return m.withdraw(a, crowded())
		}
	}
}

// withdraw ends a wait with a failure, unless it has just been granted: then that is given back with the rest.
func (m *memory) withdraw(a *asking, f *failure) *failure {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, queue := range []*[]*asking{&m.growing, &m.arriving} {
		if i := slices.Index(*queue, a); i >= 0 {
			*queue = slices.Delete(*queue, i, i+1)
			m.unpark(a)
		}
	}
	m.settle()
	return f
}

// unpark ends that a request waits. What the time was until then is not the body's fault.
func (m *memory) unpark(a *asking) {
	m.parked -= a.share.size // 0 where it was arriving
	a.share.asking, a.share.begun = false, time.Now()
	a.share.got.Store(0)
}

// settle decides about those that wait, as far as that is possible.
func (m *memory) settle() {
	for len(m.growing) > 0 || len(m.arriving) > 0 {
		queue := &m.growing
		if len(m.growing) == 0 {
			queue = &m.arriving
		}
		a := (*queue)[0]
		if m.used+a.size <= m.total {
			*queue = slices.Delete(*queue, 0, 1)
			m.unpark(a)
			m.used += a.size
			a.share.size += a.size
			a.granted = true
			close(a.decided)
			continue
		}
		if len(m.growing) == 0 || m.parked < m.used {
			return
		}
		last := len(m.growing) - 1
		a = m.growing[last]
		m.growing = slices.Delete(m.growing, last, last+1)
		m.unpark(a)
		close(a.decided)
	}
}

// give takes back a part of a share.
func (m *memory) give(s *share, size int64) {
	if size == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= size
	s.size -= size
	m.settle()
}

// receive notes that the body which a share is for is arriving, until arrived.
func (m *memory) receive(s *share, client *clientConn) {
	if s.size == 0 || s.client != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.client, s.begun = client, time.Now()
	s.got.Store(0)
	m.receiving[s] = struct{}{}
}

func (m *memory) arrived(s *share) {
	if s.client == nil {
		return
	}
	m.mu.Lock()
	delete(m.receiving, s)
	m.mu.Unlock()
	s.client = nil
}

// evict ends the bodies that arrive too slowly to let others wait for them. It ends their current read; one that
// begins just then is met by the next look.
func (m *memory) evict() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.receiving {
		age := time.Since(s.begun)
		if !s.asking && age >= m.slow && float64(s.got.Load()) < age.Seconds()*slowPace {
			s.evicted.Store(true)
			_ = s.client.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// tooSlow is what a body is told that was ended because others waited.
func tooSlow() *failure {
	f := fail(routing.Overloaded, "the body arrives at less than %d KiB per second while other requests wait for memory: try again later, or raise the sidecar's memory limit", slowPace>>10)
	f.retryAfter = 1
	return f
}
