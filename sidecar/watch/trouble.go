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
func (a *API) forbids(s state) bool { return a.refuses(s) && apierrors.IsForbidden(s.trouble) }

// isRefusal tells whether the API server is there and says no.
func isRefusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err)
}

// refusal says what to do where the API server says no.
func (f *feed) refusal(namespace string, err error) string {
	switch {
	case apierrors.IsForbidden(err) && f.name != "":
		return fmt.Sprintf("the right to list and watch Secret %s in namespace %s is missing: bind a Role with resources [secrets], resourceNames [%s] and verbs [list, watch]", f.name, namespace, f.name)
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("the right to list and watch %s in namespace %s is missing: bind a Role with verbs [list, watch] on them", f.resource, namespace)
	case apierrors.IsUnauthorized(err):
		return "the API server does not accept the credentials: renew the token or certificate"
	}
	return fmt.Sprintf("the API server does not know %s: install the CRDs", f.resource)
}

// problems gives what the API server refuses.
func (a *API) problems(states []state) []routing.Problem {
	var all []routing.Problem
	for i, f := range a.feeds {
		if a.refuses(states[i]) {
			all = append(all, routing.Problem{
				Object: routing.Ref{Kind: f.kind, Namespace: a.Namespace, Name: orAll(f.name)}, Severity: routing.Invalid, Code: routing.ConfigurationUnread,
				Message: f.refusal(a.Namespace, states[i].trouble) + "; " + a.consequence(),
			})
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

func (a *API) consequence() string {
	if a.current == nil {
		return "until then, all calls are refused"
	}
	return "what was read before keeps running"
}

// tell notes since when the API server is away, and logs what is new of that and of what it refuses.
func (a *API) tell(states []state) {
	for i, f := range a.feeds {
		said := ""
		if err := states[i].trouble; a.refuses(states[i]) {
			// Credentials that are refused are refused to all feeds, which is said once.
			if said = f.refusal(a.Namespace, err); !slices.Contains(slices.Collect(maps.Values(a.troubles)), said) {
				a.Log.Error(err, "the API server refuses to tell the configuration", "resource", f.resource, "remedy", said, "then", a.consequence())
			}
		}
		a.troubles[f.resource] = said
	}
	since, cause := a.away(states)
	var saved time.Time
	if a.current != nil {
		saved = a.current.saved
	}
	switch gone := cause != nil || !saved.IsZero(); {
	case gone && a.outage == nil:
		a.outage = &snapshot.Outage{Since: since, Saved: saved}
		a.Log.Error(cause, "the API server cannot be reached", "server", a.Config.Host, "then", a.consequence()+"; it is asked again until it answers")
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
		if err == nil && s.changes == 0 && a.waited {
			at, err = a.started, errNoAnswer
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
