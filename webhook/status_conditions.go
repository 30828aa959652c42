package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// The API server's limits: characters of a condition's message, and bytes of an event's note.
const (
	maxMessage = 32768
	maxNote    = 1024
)

// conditionsFor words what Compile found out about one object. problems are the object's own, in the order of Compile: worst
// first. The times of transition are left to settle.
func conditionsFor(problems []routing.Problem, generation int64) []metav1.Condition {
	accepted := metav1.Condition{Type: v1beta1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1beta1.ConditionAccepted, ObservedGeneration: generation}
	resolved := metav1.Condition{Type: v1beta1.ConditionResolvedRefs, Status: metav1.ConditionTrue, Reason: v1beta1.ConditionResolvedRefs, ObservedGeneration: generation}
	var faults, missing []string
	for i := range problems {
		switch p := &problems[i]; p.Severity {
		case routing.Invalid:
			faults = append(faults, plain(p.String()))
			lower(&accepted, p)
		case routing.Unresolved:
			missing = append(missing, plain(p.String()))
			lower(&resolved, p)
		case routing.Warning:
			faults = append(faults, "warning: "+plain(p.String()))
		}
	}
	if accepted.Status == metav1.ConditionTrue {
		faults = append([]string{"the object is valid and in use"}, faults...)
	}
	switch {
	case resolved.Status == metav1.ConditionFalse:
	case accepted.Status == metav1.ConditionTrue:
		missing = []string{"everything that the object names exists"}
	default: // its faults may have kept references from being judged
		missing = []string{"nothing is known to be missing"}
	}
	accepted.Message, resolved.Message = joined(faults, maxMessage), joined(missing, maxMessage)
	return []metav1.Condition{accepted, resolved}
}

// lower makes a condition false. The first problem that does it, the worst, gives the reason.
func lower(c *metav1.Condition, p *routing.Problem) {
	if c.Status == metav1.ConditionTrue {
		c.Status, c.Reason = metav1.ConditionFalse, string(p.Code)
	}
}

// joined puts sentences into at most limit bytes. Those that do not fit are counted.
func joined(sentences []string, limit int) string {
	all := strings.Join(sentences, "; ")
	if len(all) <= limit {
		return all
	}
	const room = len("; and 1000000 more")
	end, kept := 0, 0
	for _, s := range sentences {
		next := end + len(s)
		if kept > 0 {
			next += len("; ")
		}
		if next > limit-room {
			break
		}
		end, kept = next, kept+1
	}
	if kept == 0 {
		return clipped(all, limit)
	}
	return fmt.Sprintf("%s; and %d more", all[:end], len(sentences)-kept)
}

// clipped ends s with "…" where it has more than limit bytes. No character is cut in two.
func clipped(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len("…")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// settle gives wanted conditions their times of transition, which stay what they were where the status does. It tells whether
// anything differs from what is there.
func settle(wanted, there []metav1.Condition, now metav1.Time) (changed bool) {
	for i := range wanted {
		w, old := &wanted[i], meta.FindStatusCondition(there, wanted[i].Type)
		if old == nil || old.Status != w.Status || old.LastTransitionTime.IsZero() {
			w.LastTransitionTime = now
			changed = true
			continue
		}
		w.LastTransitionTime = old.LastTransitionTime
		changed = changed || old.Reason != w.Reason || old.Message != w.Message || old.ObservedGeneration != w.ObservedGeneration
	}
	return changed
}

// news tells whether going from old to c is worth an event: a status that turned, another reason to refuse, or a refusal at
// first sight. That a new object is well is what everybody expects.
func news(old *metav1.Condition, c metav1.Condition) bool {
	if c.Status == metav1.ConditionTrue {
		return old != nil && old.Status != c.Status
	}
	return old == nil || old.Status != c.Status || old.Reason != c.Reason
}

// joinedNote makes a message short enough for an event. What is left out stands in the object's status.
func joinedNote(message string) string { return clipped(message, maxNote) }
