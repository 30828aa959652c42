package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// A retry budget keeps an outage from being multiplied: in the long run at most one attempt in six is a retry.
const (
	deposits    = 5           // how many requests pay for a retry
	maxSavings  = 100         // retries; a long good time does not pay for a long bad one
	reserve     = 3           // retries that hosts with few requests have besides
	reserveTime = time.Second // in which the whole reserve comes back
)

// retryBudget is that of one owned host.
type retryBudget struct {
	now   func() time.Time
	saved atomic.Int64 // deposits

	mu   sync.Mutex
	full time.Time // when the reserve is full again
}

// deposit is what each request does.
func (b *retryBudget) deposit() {
	if b.saved.Load() < maxSavings*deposits { // several at once may save a little more
		b.saved.Add(1)
	}
}

// take tells whether a retry may be made, and pays for it: from the reserve while it lasts.
func (b *retryBudget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if missing := b.full.Sub(now); missing < 0 || missing > reserveTime {
		b.full = now
	}
	if after := b.full.Add(reserveTime / reserve); after.Sub(now) <= reserveTime {
		b.full = after
		return true
	}
	if b.saved.Load() < deposits {
		return false
	}
	b.saved.Add(-deposits)
	return true
}

// retryBudgets are those of the owned hosts that are called, by name.
type retryBudgets struct {
	mu  sync.RWMutex
	all map[string]*retryBudget
}

// of gives the budget of a host.
func (r *retryBudgets) of(h *routing.Host) *retryBudget {
	r.mu.RLock()
	b := r.all[h.Name]
	r.mu.RUnlock()
	if b != nil {
		return b
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b = r.all[h.Name]; b == nil {
		b = &retryBudget{now: time.Now}
		r.all[h.Name] = b
	}
	return b
}

// retire forgets the hosts that a new configuration does not serve.
func (r *retryBudgets) retire(table *routing.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.all {
		if h := table.Host([]byte(name)); h == nil || h.Name != name || h.Refusal != nil {
			delete(r.all, name)
		}
	}
}
