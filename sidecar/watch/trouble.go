package watch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// settleAccess is how long a refusal must last to be believed while the API server comes back: as long as it does not
// know its own roles yet, it refuses everything.
const settleAccess = 5 * time.Second

// refuses tells whether the API server is there and says no for good.
func (a *API) refuses(s state) bool {
	first := a.current == nil && a.outage == nil
	return !s.refused.IsZero() && (first || time.Since(s.refused) > settleAccess)
}

// forbids tells whether the API server knows who asks and says no for good. What is on disk does not outlive that.
func (a *API) forbids(s state) bool {
	return !s.optional && a.refuses(s) && apierrors.IsForbidden(s.trouble)
}

// isRefusal tells whether the API server is there and says no.
func isRefusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err)
}

// refusal says what to do where the API server says no.
func (f *feed) refusal(err error) string {
	where, role := "in namespace "+f.namespace, "Role"
	if f.namespace == "" {
		where, role = "in all namespaces", "ClusterRole"
	}
	switch {
	case apierrors.IsForbidden(err) && f.only != "":
		return fmt.Sprintf("the right to list and watch Secret %s %s is missing: bind a %s with resources [secrets], resourceNames [%s] and verbs [list, watch]", f.only, where, role, f.only)
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("the right to list and watch %s %s is missing: bind a %s with verbs [list, watch] on them", f.name(), where, role)
	case apierrors.IsUnauthorized(err):
		return "the API server does not accept the credentials: renew the token or certificate"
	}
	return fmt.Sprintf("the API server does not know %s: install the CRDs", f.name())
}

// problems gives what the API server refuses.
func (a *API) problems(states []state) []routing.Problem {
	var all []routing.Problem
	for _, s := range states {
		if !a.refuses(s) {
			continue
		}
		severity := routing.Invalid
		if s.optional {
			severity = routing.Unresolved
		}
		p := routing.Problem{
			Object: routing.Ref{Kind: s.kind, Namespace: orAll(s.namespace), Name: orAll(s.only)}, Severity: severity, Code: routing.ConfigurationUnread,
			Message: s.refusal(s.trouble) + "; " + a.consequence(s.feed),
		}
		if !slices.Contains(all, p) { // what is followed by two selectors
			all = append(all, p)
		}
	}
	return all
}

func orAll(name string) string {
	if name == "" {
		return "*"
	}
	return name
}

// consequence says what holds while a feed tells nothing; nil: all of them.
func (a *API) consequence(f *feed) string {
	if f != nil && f.optional {
		return f.without
	}
	if a.current == nil {
		return "until then, all calls are refused"
	}
	return "what was read before keeps running"
}

// tell notes since when the API server is away, and logs what is new of that and of what it refuses.
func (a *API) tell(states []state) {
	for _, s := range states {
		said := ""
		if a.refuses(s) {
			// Credentials that are refused are refused to all feeds, which is said once.
			if said = s.refusal(s.trouble); !slices.Contains(slices.Collect(maps.Values(a.troubles)), said) {
				a.Log.Error(s.trouble, "the API server refuses to tell the configuration", "resource", s.name(), "remedy", said, "then", a.consequence(s.feed))
			}
		}
		if said == "" && !s.refused.IsZero() { // it may be believed again in a moment
			continue
		}
		a.troubles[s.name()+s.selector] = said
	}
	since, cause := a.away(states)
	var saved time.Time
	if a.current != nil {
		saved = a.current.saved
	}
	switch gone := cause != nil || !saved.IsZero(); {
	case gone && a.outage == nil:
		a.outage = &snapshot.Outage{Since: since, Saved: saved}
		a.Log.Error(cause, "the API server cannot be reached", "server", a.Config.Host, "then", a.consequence(nil)+"; it is asked again until it answers")
	case gone:
		a.outage = &snapshot.Outage{Since: a.outage.Since, Saved: saved}
	case a.outage != nil:
		a.Log.Info("the API server is reachable again", "after", time.Since(a.outage.Since).Round(time.Millisecond).String())
		a.outage = nil
	}
}

var errNoAnswer = errors.New("there is no answer yet")

// away tells since when the API server has not been heard, and why; the error is nil where it is there.
func (a *API) away(states []state) (since time.Time, cause error) {
	for _, s := range states {
		at, err := s.since, s.trouble
		if err == nil && s.changes == 0 && a.waited && time.Since(s.since) > graceTime {
			err = errNoAnswer
		}
		// A kind that has just been defined is not served yet.
		if s.optional && time.Since(at) < settleAccess {
			continue
		}
		if err == nil || a.refuses(s) || !s.refused.IsZero() && a.outage == nil {
			continue
		}
		if since.IsZero() || at.Before(since) {
			since = at
		}
		if cause == nil || errors.Is(cause, errNoAnswer) {
			cause = err
		}
	}
	return since, cause
}
