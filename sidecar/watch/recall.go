package watch

import (
	"errors"
	"io/fs"
	"time"
)

// remember has the hosts stay owned that were when this program ran last, in the same pod: its app calls them still. Unlike what
// recall does, this holds whatever the API server says, which knows nothing of hosts that nothing names any more.
func (a *API) remember() {
	if a.LastGood == "" {
		return
	}
	s, err := load(a.LastGood, a.Namespace)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		a.Log.Error(err, "what was in use before this start is not known", "path", a.LastGood,
			"then", "calls to hosts that were deleted before it are passed on in plain text")
		return
	}
	var h history
	table, _ := h.compile(s.set(&h, a.KeysSecret), a.workload())
	before, now := table.Retiring(s.Retired), *a.Store.Load()
	now.Table = now.Table.Retaining(before)
	a.Store.Publish(&now)
}

// recall puts the configuration in use that was saved last.
func (a *API) recall() {
	s, err := load(a.LastGood, a.Namespace)
	if err != nil {
		a.unusable = true
		a.Log.Error(err, "the last good configuration cannot be used", "path", a.LastGood)
		return
	}
	all := s.set(&a.history, a.KeysSecret)
	c := &compiled{all: all, saved: s.Time, workload: a.workload()}
	c.table, c.findings = a.history.compile(all, c.workload)
	c.findings = a.concerning(c.findings)
	a.current = c
	a.tuning.take(s.Telemetry, refOf(secretKind, a.Namespace, a.KeysSecret), place{file: "the last good configuration"})
	s.enrol(a.Members)
	a.Log.Info("the last good configuration is in use until the API server is reachable", "path", a.LastGood, "saved", s.Time.Format(time.RFC3339))
}
