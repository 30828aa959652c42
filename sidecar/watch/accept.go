package watch

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/sidecar/routing"
)

// version is an object that ran: what keeps running while an edit of it is refused.
type version struct {
	doc   *document
	file  string
	stamp metav1.Time
}

// history is what ran last, object by object. It belongs to one goroutine.
type history struct{ accepted map[key]*version }

// compile makes a table of what is written, with the last good version of each object whose edit is
// refused, and remembers what runs.
func (h *history) compile(all *set, workload *routing.Workload) (*routing.Table, []finding) {
	for {
		table, problems := routing.Compile(all.input(), workload)
		if all.refuse(problems) {
			continue // each object once, so this ends
		}
		h.remember(all, problems)
		return table, all.locate(problems)
	}
}

// compile judges what the files say now.
func (s *source) compile(now time.Time) (*routing.Table, []finding, *set) {
	all := s.gather(now)
	workload := s.workload
	if workload != nil {
		workload = &routing.Workload{Namespace: all.namespace, Labels: workload.Labels, Gateway: workload.Gateway}
	}
	table, findings := s.history.compile(all, workload)
	return table, findings, all
}

// refuse puts the last good version in the place of each edit that is invalid, and tells whether there
// was one.
func (s *set) refuse(problems []routing.Problem) (any bool) {
	invalid := map[routing.Ref][]routing.Problem{}
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			invalid[p.Object] = append(invalid[p.Object], p)
		}
	}
	for _, c := range s.candidates {
		why := invalid[c.ref]
		if len(why) == 0 || c.refused != nil || c.before == nil || c.unchanged() {
			continue
		}
		for i := range why {
			why[i].Message += "; the version from before this edit keeps running"
		}
		c.refused, any = why, true
		s.put(c.ref, c.at, routing.Unreadable{Hosts: c.hosts()}, why...) // what it claims, its last good version decides
	}
	return any
}

// remember keeps what runs now, for when an edit of it is refused.
func (h *history) remember(all *set, problems []routing.Problem) {
	invalid := map[routing.Ref]bool{}
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			invalid[p.Object] = true
		}
	}
	accepted := map[key]*version{}
	for _, c := range all.candidates {
		k := c.id(c.ref.Namespace)
		switch {
		case c.refused == nil && !invalid[c.ref]:
			accepted[k] = &version{doc: c.document, file: c.at.file, stamp: c.stamp}
		case c.before != nil:
			accepted[k] = c.before
		}
	}
	h.accepted = accepted
}

// finding is a problem and where it is written.
type finding struct {
	routing.Problem
	at place
}

// locate finds where the objects with problems are written, and gives them back their own names.
func (s *set) locate(problems []routing.Problem) []finding {
	at := map[routing.Ref]place{}
	for _, c := range s.candidates {
		at[c.ref] = c.at
	}
	var all []finding
	for _, p := range problems {
		f := finding{p, at[p.Object]}
		if n, ok := s.names[p.Object]; ok {
			f.Object, f.at = n.object, n.at
		}
		all = append(all, f)
	}
	return all
}

// hosts counts the host names that the objects give.
func (s *set) hosts() int {
	names := map[string]bool{}
	for _, c := range s.candidates {
		for _, h := range c.hosts() {
			names[strings.ToLower(h)] = true
		}
	}
	delete(names, "")
	return len(names)
}
