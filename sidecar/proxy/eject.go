package proxy

import (
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
)

// maxEjection is how much longer than the first an ejection can get.
const maxEjection = 10

// ejections knows which backends failed so often in a row that they are left alone for a while. After that time one
// call is the probe: its answer brings the backend back, its failure doubles the time. Nothing is refused for it; who
// chooses a backend goes elsewhere while there is an elsewhere.
//
// Calls at a provider that never failed cost two atomic reads here.
type ejections struct {
	log     logr.Logger
	metrics *metrics.Set
	now     func() time.Time

	turns    atomic.Uint64 // ejections and returns so far
	troubled atomic.Int32  // backends that have failed since their last complete answer
	out      atomic.Int32  // backends that are ejected

	mu   sync.Mutex
	used map[backendKey]struct{} // by the configuration, where it wants ejections at all
	all  map[backendKey]*backend // those of used that have ever failed
}

// backendKey is what fails: a provider at an endpoint, whatever the rules ask it for.
type backendKey struct {
	endpoint unique.Handle[routing.Endpoint]
	provider routing.Ref
}

func keyOf(t *routing.Target) backendKey { return backendKey{t.Endpoint, t.Provider} }

// backend is how one that has failed is doing.
type backend struct {
	early, late int       // failures in a row: before the answer began, in its middle
	out         bool      // ejected, until a probe is answered
	until       time.Time // before which there is no probe
	probing     bool
	times       int    // ejections without a complete answer in between
	turn        uint64 // of its last ejection or return: calls that were sent before say nothing about what came after
	troubled    bool   // it is counted as such
}

// trial is one attempt at a backend, from when it is chosen. It ends with completed, failed or abandon; any more of
// them do nothing, as with the zero trial.
type trial struct {
	target   *routing.Target
	turn     uint64
	probe    bool
	answered bool
	hurried  bool // it has only the time that others left of the request's
}

func newEjections(log logr.Logger, m *metrics.Set) *ejections {
	e := &ejections{log: log, metrics: m, now: time.Now, used: map[backendKey]struct{}{}, all: map[backendKey]*backend{}}
	m.Gauge("remora_ejected_backends", func() float64 { return float64(e.out.Load()) })
	return e
}

// admit begins a trial, unless the backend is to be left alone.
func (e *ejections) admit(t *routing.Target) (trial, bool) {
	tr := e.force(t)
	if e.out.Load() == 0 {
		return tr, true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	tr.turn = e.turns.Load()
	b := e.ejected(t)
	if b == nil {
		return tr, true
	}
	if !e.due(b) {
		return trial{}, false
	}
	b.probing, tr.probe = true, true
	return tr, true
}

// force begins a trial where there is no other backend to go to. It is no probe, but its answer is as good as one.
func (e *ejections) force(t *routing.Target) trial {
	return trial{target: t, turn: e.turns.Load()}
}

// free tells whether admit would let a trial begin.
func (e *ejections) free(t *routing.Target) bool {
	if e.out.Load() == 0 {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.ejected(t)
	return b == nil || e.due(b)
}

func (e *ejections) ejected(t *routing.Target) *backend {
	if b := e.all[keyOf(t)]; b != nil && b.out && t.Policy.EjectAfter > 0 {
		return b
	}
	return nil
}

func (e *ejections) due(b *backend) bool { return !b.probing && !e.now().Before(b.until) }

// answered says that the first byte of an answer has come that is no failure.
func (e *ejections) answered(tr *trial) {
	if tr.target == nil || tr.answered {
		return
	}
	tr.answered = true
	if e.troubled.Load() == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.all[keyOf(tr.target)]
	if b == nil || tr.turn < b.turn {
		return
	}
	b.early = 0
	if b.out {
		b.out, b.probing, tr.probe = false, false, false
		// Who only ever begins its answers has to show a complete one first.
		b.late = max(tr.target.Policy.EjectAfter-1, 0)
		e.out.Add(-1)
		b.turn = e.turns.Add(1)
		tr.turn = b.turn
		e.log.Info("a provider that was left alone answers again", "code", routing.BackendEjected,
			"provider", tr.target.Provider.String(), "upstream", addressOf(tr.target.Endpoint.Value()))
	}
	e.note(b)
}

// completed says that all of the answer has come, or all that the app wanted.
func (e *ejections) completed(tr *trial) {
	e.answered(tr)
	if tr.target == nil {
		return
	}
	t := *tr
	*tr = trial{}
	if e.troubled.Load() == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.all[keyOf(t.target)]; b != nil && t.turn >= b.turn {
		b.early, b.late, b.times = 0, 0, 0
		e.note(b)
	}
}

// failed says that the provider did not answer, or not to the end.
func (e *ejections) failed(tr *trial) {
	t := *tr
	*tr = trial{}
	if t.target == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := keyOf(t.target)
	if _, ok := e.used[key]; !ok {
		return
	}
	b := e.all[key]
	if b == nil {
		b = &backend{}
		e.all[key] = b
	}
	switch {
	case t.turn < b.turn || b.out && !t.probe:
		return // it is known already
	case t.answered:
		b.late++
	default:
		b.early++
	}
	if limit := t.target.Policy.EjectAfter; b.out || limit > 0 && b.early+b.late >= limit {
		e.eject(b, t.target)
	}
	e.note(b)
}

// eject leaves a backend alone from now on.
func (e *ejections) eject(b *backend, t *routing.Target) {
	base := t.Policy.EjectionTime
	length := min(base<<min(b.times, 4), maxEjection*base)
	if !b.out {
		e.out.Add(1)
	}
	b.out, b.probing = true, false
	b.until = e.now().Add(length)
	b.times++
	b.turn = e.turns.Add(1)
	e.metrics.Ejections(t.Provider.Path()).Inc()
	e.log.Info("a provider fails again and again: it is left alone where there is another", "code", routing.BackendEjected,
		"provider", t.Provider.String(), "upstream", addressOf(t.Endpoint.Value()), "for", length.String(), "failures", b.early+b.late)
}

// abandon ends a trial that says nothing about the backend: the app left, or there was no connection to be had.
func (e *ejections) abandon(tr *trial) {
	t := *tr
	*tr = trial{}
	if !t.probe {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.all[keyOf(t.target)]; b != nil && b.out && t.turn >= b.turn {
		b.probing = false
	}
}

// note keeps the count of those in trouble.
func (e *ejections) note(b *backend) {
	switch troubled := b.out || b.early+b.late+b.times > 0; {
	case troubled && !b.troubled:
		e.troubled.Add(1)
	case !troubled && b.troubled:
		e.troubled.Add(-1)
	}
	b.troubled = b.out || b.early+b.late+b.times > 0
}

// retire forgets the backends that a new configuration has no use for.
func (e *ejections) retire(table *routing.Table) {
	used := map[backendKey]struct{}{}
	for t := range table.Targets() {
		if t.Policy.EjectAfter > 0 {
			used[keyOf(t)] = struct{}{}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.used = used
	for key, b := range e.all {
		if _, ok := used[key]; ok {
			continue
		}
		delete(e.all, key)
		if b.out {
			e.out.Add(-1)
		}
		if b.troubled {
			e.troubled.Add(-1)
		}
	}
}
