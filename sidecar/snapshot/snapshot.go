// Package snapshot is where the source of configuration and the proxy meet, and the only place: the one
// publishes, the other loads once per request and keeps what it got to the end of it.
package snapshot

import (
	"sync"
	"sync/atomic"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
)

// Snapshot is a configuration as it runs. It does not change once it is published.
type Snapshot struct {
	Table    *routing.Table
	Problems []routing.Problem
	// Ready says that the configuration has been read at least once.
	Ready bool
	// Outage is set while the API server does not tell what the configuration is. It does not keep the
	// configuration from being in use.
	Outage *Outage
	// Telemetry is what is told of calls; never nil in a Store.
	Telemetry *telemetry.Settings
}

// Outage is a time in which the API server is away.
type Outage struct {
	Since time.Time
	// Saved is when the configuration was written to disk, if it was read from there. Else it is zero.
	Saved time.Time
}

// Equal compares two outages; nil is none.
func (o *Outage) Equal(p *Outage) bool {
	if o == nil || p == nil {
		return o == p
	}
	return o.Since.Equal(p.Since) && o.Saved.Equal(p.Saved)
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
	s.current.Store(&Snapshot{Table: table, Telemetry: telemetry.Default()})
	return s
}

// Load gives the current snapshot; never nil.
func (s *Store) Load() *Snapshot { return s.current.Load() }

// Publish replaces the current snapshot. Requests that are under way keep theirs. Without Telemetry, it gets the default.
func (s *Store) Publish(n *Snapshot) {
	if n.Telemetry == nil {
		n.Telemetry = telemetry.Default()
	}
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
