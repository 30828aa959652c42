package proxy

import (
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
)

// ejections knows which backends failed so often in a row that they are left alone for a while: see balance.Health. Nothing is refused
// for it; who chooses a backend goes elsewhere while there is an elsewhere. Of a target with servers, it is these that fail, and their
// group knows how they are doing; trials of both kinds come here.
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
	balance.Health
	troubled bool // it is counted as such
}

// trial is one attempt at a backend, or at a server of one, from when it is chosen until abandon. In between, completed or failed may say
// once how it went. Any more of them do nothing, as with the zero trial.
type trial struct {
	balance.Trial
	target  *routing.Target // nil: nothing is to be learnt any more
	hurried bool            // it has only the time that others left of the request's
	call    balance.Call    // at the server; the rest of the trial is its then
	group   *group          // of that server
	slot    *atomic.Int64   // where the attempt is counted; nil: nobody wants to know
}

// limitsOf gives when a backend is left alone.
func limitsOf(p *routing.TrafficPolicy) balance.Limits {
	return balance.Limits{After: p.EjectAfter, AfterGateway: p.EjectAfterGatewayErrors, Time: p.EjectionTime}
}

func ejects(p *routing.TrafficPolicy) bool { return p.EjectAfter > 0 || p.EjectAfterGatewayErrors > 0 }

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
	tr.Turn = e.turns.Load()
	b := e.ejected(t)
	if b == nil {
		return tr, true
	}
	if !b.Due(e.now()) {
		return trial{}, false
	}
	b.Probe(&tr.Trial)
	return tr, true
}

// force begins a trial where there is no other backend to go to. It is no probe, but its answer is as good as one.
func (e *ejections) force(t *routing.Target) trial {
	return trial{target: t, Trial: balance.Trial{Turn: e.turns.Load()}}
}

// free tells whether admit would let a trial begin.
func (e *ejections) free(t *routing.Target) bool {
	if e.out.Load() == 0 {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.ejected(t)
	return b == nil || b.Due(e.now())
}

func (e *ejections) ejected(t *routing.Target) *backend {
	if b := e.all[keyOf(t)]; b != nil && b.Out() && ejects(&t.Policy) {
		return b
	}
	return nil
}

// answered says that the first byte of an answer has come that is no failure.
func (e *ejections) answered(tr *trial) {
	if tr.group != nil {
		if tr.call.Answered() {
			tr.group.returns(tr.call.Server())
		}
		return
	}
	if tr.target == nil || tr.Answered {
		return
	}
	tr.Answered = true
	if e.troubled.Load() == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.all[keyOf(tr.target)]
	if b == nil || !b.Concerns(&tr.Trial) {
		return
	}
	limits := limitsOf(&tr.target.Policy)
	if b.Answers(&tr.Trial, &limits, e.turns.Load()+1) {
		e.turns.Add(1)
		e.out.Add(-1)
		e.log.Info("a provider that was left alone answers again", "code", routing.BackendEjected,
			"provider", tr.target.Provider.String(), "upstream", addressOf(tr.target.Endpoint.Value()))
	}
	e.note(b)
}

// completed says that all of the answer has come, or all that the app wanted.
func (e *ejections) completed(tr *trial) {
	e.answered(tr)
	tr.call.Completed()
	t := tr.verdict()
	if t.target == nil || e.troubled.Load() == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.all[keyOf(t.target)]; b != nil {
		b.Completes(&t.Trial)
		e.note(b)
	}
}

// verdict gives what a trial of a provider is about, and has nothing more learnt from it.
func (tr *trial) verdict() trial {
	t := *tr
	tr.target, tr.Trial = nil, balance.Trial{}
	if tr.group != nil {
		t.target = nil
	}
	return t
}

// failed says that the provider did not answer, or not to the end.
func (e *ejections) failed(tr *trial, f balance.Fault) {
	if tr.group != nil {
		if left := tr.call.Failed(f, e.now()); left > 0 {
			tr.group.leaves(tr.call.Server(), f, left)
		}
	}
	t := tr.verdict()
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
	limits := limitsOf(&t.target.Policy)
	if b.Fails(&t.Trial, f, &limits) {
		e.eject(b, t.target, f, &limits)
	}
	e.note(b)
}

// eject leaves a backend alone from now on.
func (e *ejections) eject(b *backend, t *routing.Target, f balance.Fault, limits *balance.Limits) {
	if !b.Out() {
		e.out.Add(1)
	}
	length := b.Leave(f, limits, e.now(), e.turns.Add(1))
	e.metrics.Ejections(t.Provider.Path()).Inc()
	e.log.Info("a provider fails again and again: it is left alone where there is another", "code", routing.BackendEjected,
		"provider", t.Provider.String(), "upstream", addressOf(t.Endpoint.Value()), "for", length.String(), "failures", b.Failures())
}

// abandon ends a trial. Where neither completed nor failed was said, it shows nothing: the app left, or there was no connection to be had.
func (e *ejections) abandon(tr *trial) {
	t := tr.verdict()
	tr.call.End()
	if tr.slot != nil {
		tr.slot.Add(-1)
	}
	*tr = trial{}
	if !t.Probe || t.target == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.all[keyOf(t.target)]; b != nil {
		b.Abandon(&t.Trial)
	}
}

// note keeps the count of those in trouble.
func (e *ejections) note(b *backend) {
	switch troubled := b.Troubled(); {
	case troubled && !b.troubled:
		e.troubled.Add(1)
	case !troubled && b.troubled:
		e.troubled.Add(-1)
	}
	b.troubled = b.Troubled()
}

// retire forgets the backends that a new configuration has no use for.
func (e *ejections) retire(table *routing.Table) {
	used := map[backendKey]struct{}{}
	for t := range table.Targets() {
		if ejects(&t.Policy) {
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
		if b.Out() {
			e.out.Add(-1)
		}
		if b.troubled {
			e.troubled.Add(-1)
		}
	}
}
