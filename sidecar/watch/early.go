package watch

import (
	"slices"
	"time"

	"remora.dev/remora/sidecar/routing"
)

const (
	// holdTime is how long a table is held back in which a reference has come to lead nowhere.
	holdTime = 100 * time.Millisecond
	// keyTime is the same where a provider that is in use names another key: the controller hears of it no sooner than the
	// sidecar, and has to read it and to hand it over. Within a second, a key that is named no more is out of use in any case.
	keyTime = 800 * time.Millisecond
)

// early tells whether a table is to wait. Each kind is followed for itself, so an edit of a route may arrive before the
// provider that was made for it, and the end of a provider before the edit of the route that has left it. Calls would
// fail in between that never had to. What the Secret of keys no longer gives is never held back.
func (a *API) early(next *compiled) bool {
	most := a.patience(next)
	if most == 0 {
		a.held = time.Time{}
		return false
	}
	if a.held.IsZero() {
		a.held = time.Now()
	}
	if left := most - time.Since(a.held); left > 0 {
		time.AfterFunc(left, a.signal)
		return true
	}
	a.held = time.Time{}
	return false
}

// patience is how long a table may wait for what it lacks. A provider that is new does not wait for its key: until its host
// is owned, calls to it pass on.
func (a *API) patience(next *compiled) time.Duration {
	if a.current == nil || a.current.changes == nil || a.revised(next) {
		return 0
	}
	lost := lost(a.current.findings, next.findings)
	if len(lost) == 0 {
		return 0
	}
	known := map[routing.Ref]bool{}
	for _, c := range a.current.all.candidates {
		known[c.ref] = true
	}
	for _, f := range lost {
		if f.Code != routing.SecretNotFound || !known[f.Object] {
			return holdTime
		}
	}
	return keyTime
}

// revised tells whether the Secret of keys is another one than for the table in use.
func (a *API) revised(next *compiled) bool {
	if a.current == nil || a.current.changes == nil {
		return false
	}
	return slices.ContainsFunc(a.feeds, func(f *feed) bool {
		return f.kind == secretKind && a.current.changes[f] != next.changes[f]
	})
}

// lost gives the references that are unresolved and were not before.
func lost(before, after []finding) []finding {
	known := map[routing.Problem]bool{}
	for _, f := range before {
		known[f.Problem] = true
	}
	return slices.DeleteFunc(slices.Clone(after), func(f finding) bool { return f.Severity != routing.Unresolved || known[f.Problem] })
}
