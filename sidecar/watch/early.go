package watch

import (
	"time"

	"remora.dev/remora/sidecar/routing"
)

// holdTime is how long a table is held back in which a reference has come to lead nowhere.
const holdTime = 100 * time.Millisecond

// early tells whether a table is to wait. Each kind is followed for itself, so an edit of a route may arrive before the
// provider that was made for it, and the end of a provider before the edit of the route that has left it. Calls would
// fail in between that never had to. What the Secret of keys no longer gives is never held back.
func (a *API) early(next *compiled) bool {
	if a.current == nil || a.current.changes == nil || a.revised(next) || !lost(a.current.findings, next.findings) {
		a.held = time.Time{}
		return false
	}
	if a.held.IsZero() {
		a.held = time.Now()
		time.AfterFunc(holdTime, a.signal)
	}
	if time.Since(a.held) < holdTime {
		return true
	}
	a.held = time.Time{}
	return false
}

// revised tells whether the Secret of keys is another one than for the table in use.
func (a *API) revised(next *compiled) bool {
	for i, f := range a.feeds {
		if f.kind == secretKind && a.current.changes[i] != next.changes[i] {
			return true
		}
	}
	return false
}

// lost tells whether a reference is unresolved that was not before.
func lost(before, after []finding) bool {
	known := map[routing.Problem]bool{}
	for _, f := range before {
		known[f.Problem] = true
	}
	for _, f := range after {
		if f.Severity == routing.Unresolved && !known[f.Problem] {
			return true
		}
	}
	return false
}
