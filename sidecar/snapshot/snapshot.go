// Package snapshot is where the source of configuration and the proxy meet, and the only place: the one
// publishes, the other loads once per request and keeps what it got to the end of it.
package snapshot

import (
	"sync"
	"sync/atomic"

	"remora.dev/remora/sidecar/routing"
)

// Snapshot is a configuration as it runs. It does not change once it is published.
type Snapshot struct {
	Table    *routing.Table
	Problems []routing.Problem
	// Ready says that the configuration has been read at least once.
	Ready bool
}

// Store holds the current Snapshot behind one atomic pointer.
type Store struct {
	current atomic.Pointer[Snapshot]

	mu       sync.Mutex
	onChange []func(*Snapshot)
}

// NewStore makes a store with a configuration that owns nothing and passes nothing on.
func NewStore() *Store {
	s := &Store{}
	table, _ := routing.Compile(routing.Objects{Incomplete: true}, nil)
	s.current.Store(&Snapshot{Table: table})
	return s
}

// Load gives the current snapshot; never nil.
func (s *Store) Load() *Snapshot { return s.current.Load() }

// Publish replaces the current snapshot. Requests that are under way keep theirs.
func (s *Store) Publish(n *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(n)
	for _, f := range s.onChange {
		f(n)
	}
}

// OnChange has f called after each Publish, one call at a time.
func (s *Store) OnChange(f func(*Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onChange = append(s.onChange, f)
}
