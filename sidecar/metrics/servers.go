package metrics

import (
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// Servers counts what the servers behind one name are doing. Several targets may have them, each with its own view of how they are.
type Servers struct {
	Left *metrics.Counter // how often one was left alone

	set   *metrics.Set
	names []string

	mu    sync.Mutex
	views map[*func() (all, out, calls int)]struct{}
}

// Servers gives the series of servers; name is the same for the same ones.
func (s *Set) Servers(name string) *Servers {
	label := "{servers=" + quote(name) + "}"
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.servers[name]; known != nil {
		return known
	}
	of := &Servers{Left: s.set.GetOrCreateCounter("remora_server_ejections_total" + label), set: s.set, views: map[*func() (all, out, calls int)]struct{}{}}
	for _, what := range [...]string{"remora_servers", "remora_ejected_servers", "remora_server_calls"} {
		of.names = append(of.names, what+label)
	}
	if s.servers == nil {
		s.servers = map[string]*Servers{}
	}
	s.servers[name] = of
	return of
}

// Show adds a view: how many servers there are, how many of them are left alone, how many calls are under way. The series go away with
// the last view. Calling hide again does no harm.
func (s *Servers) Show(view func() (all, out, calls int)) (hide func()) {
	key := &view
	s.mu.Lock()
	defer s.mu.Unlock()
	s.views[key] = struct{}{}
	if len(s.views) == 1 {
		s.set.NewGauge(s.names[0], func() float64 { all, _, _ := s.sum(); return float64(all) })
		s.set.NewGauge(s.names[1], func() float64 { _, out, _ := s.sum(); return float64(out) })
		s.set.NewGauge(s.names[2], func() float64 { _, _, calls := s.sum(); return float64(calls) })
	}
	return func() { s.hide(key) }
}

func (s *Servers) hide(key *func() (all, out, calls int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, shown := s.views[key]; !shown {
		return
	}
	if delete(s.views, key); len(s.views) == 0 {
		for _, name := range s.names {
			s.set.UnregisterMetric(name)
		}
	}
}

// sum gives the most servers that a view has, and that are left alone in one, as they are the same ones; and all calls.
func (s *Servers) sum() (all, out, calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for view := range s.views {
		a, o, c := (*view)()
		all, out, calls = max(all, a), max(out, o), calls+c
	}
	return all, out, calls
}
