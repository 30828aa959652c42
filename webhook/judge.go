package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// change is what a request would do to one object.
type change struct {
	before   *object          // nil where it is created
	after    *object          // nil where it is deleted
	sameSpec bool             // only labels, finalizers and the like change
	around   *routing.Objects // what there is of the cluster's kinds and of Istio's; nil: that is not known
}

func (c *change) ref() routing.Ref {
	if c.after != nil {
		return c.after.ref
	}
	return c.before.ref
}

// verdict is what admission answers.
type verdict struct {
	denied   []routing.Problem // why the change is refused; empty where it is not
	warnings []string          // the most important first
}

// judge decides on a change among all other objects of its namespace, and the providers that are exported to it. It is pure: nothing
// that it is given is changed.
//
// A change is denied only for what is wrong with the object itself, and never where it deletes the object or leaves its
// spec as it was: labels, finalizers and status of an object that was admitted otherwise must not be frozen.
func judge(others []*object, c change) verdict {
	return judgeAmong(neighbours(others, c.before, c.after), c)
}

func judgeAmong(others []*object, c change) verdict {
	earlier, later := c.within(together(others, c.before)), c.within(together(others, c.after))
	if c.claims() {
		makeNewest(&later, c.ref())
	}
	problems := routing.Judge(later)

	var v verdict
	var ownProblems, missing []routing.Problem
	for _, p := range problems {
		switch {
		case p.Object != c.ref():
		case p.Severity == routing.Invalid && !c.sameSpec:
			v.denied = append(v.denied, p)
		case p.Severity == routing.Warning:
			ownProblems = append(ownProblems, p)
		default:
			missing = append(missing, p)
		}
	}
	own, unresolved := worded(ownProblems), worded(missing)
	if len(v.denied) > 0 || c.sameSpec {
		v.warnings = append(unresolved, own...)
		return v // nothing moves, and nobody else notices
	}
	broken, rest := causedInOthers(earlier, problems, c.ref())
	v.warnings = slices.Concat(broken, unresolved, routing.Plan(unrevealing(earlier, &c), unrevealing(later, &c)), own, rest)
	return v
}

// causedInOthers words the problems that other objects did not have before, those that stop an object apart. Of several with
// the same code it shows the first and the number: a provider may be used by thousands of routes.
func causedInOthers(earlier routing.Objects, now []routing.Problem, candidate routing.Ref) (broken, rest []string) {
	before := routing.Judge(earlier)
	known := map[routing.Problem]bool{}
	for _, p := range before {
		known[p] = true
	}
	type kind struct {
		severity routing.Severity
		code     routing.Code
	}
	first, count := []routing.Problem{}, map[kind]int{}
	for _, p := range now {
		if p.Object == candidate || p.Object.Namespace != candidate.Namespace || known[p] { // those of other namespaces are not for this one's people
			continue
		}
		k := kind{p.Severity, p.Code}
		if count[k]++; count[k] == 1 {
			first = append(first, p)
		}
	}
	for _, p := range first {
		words := p.Object.String() + ": " + p.String()
		if p.Severity == routing.Invalid {
			words = "this makes " + p.Object.String() + " invalid: " + p.String()
		}
		if more := count[kind{p.Severity, p.Code}] - 1; more > 0 {
			words += fmt.Sprintf("; and %d more like this", more)
		}
		if p.Severity == routing.Invalid {
			broken = append(broken, words)
		} else {
			rest = append(rest, words)
		}
	}
	return broken, rest
}

// within gives the same configuration in its surroundings.
func (c *change) within(all routing.Objects) routing.Objects {
	if a := c.around; a != nil {
		all.Services, all.InferencePools = a.Services, a.InferencePools
		all.VirtualServices, all.DestinationRules, all.Gateways = a.VirtualServices, a.DestinationRules, a.Gateways
	}
	return all
}

// together gives the configuration that the objects are. candidate may be nil.
func together(others []*object, candidate *object) routing.Objects {
	var all routing.Objects
	for _, o := range append(slices.Clip(others), candidate) {
		switch {
		case o == nil:
		case o.to != "":
			all.Exported = append(all.Exported, routing.Exported{To: o.to, Provider: o.content.Providers[0]})
		default:
			all.Providers = append(all.Providers, o.content.Providers...)
			all.Routes = append(all.Routes, o.content.Routes...)
			all.Unreadable = append(all.Unreadable, o.content.Unreadable...)
		}
	}
	return all
}

// claims tells whether the change asks for something that others may have already. Then it counts as newer than all of
// them. An edit that asks for nothing new has the object's own age, so that who has a host may go on to edit.
func (c *change) claims() bool {
	b, a := c.before, c.after
	switch {
	case a == nil:
		return false
	case b == nil || b.host != a.host || b.ref != a.ref || b.anything:
		return true
	case a.isProvider() && b.isProvider():
		return !maps.Equal(labelsOf(&a.content.Providers[0]), labelsOf(&b.content.Providers[0]))
	}
	return false
}

func labelsOf(p *v1beta1.LLMProvider) map[string]string {
	if p.Spec.WorkloadSelector == nil {
		return nil
	}
	return p.Spec.WorkloadSelector.Labels
}

// makeNewest makes an object younger than every other one.
func makeNewest(all *routing.Objects, ref routing.Ref) {
	var newest time.Time
	var candidate *metav1.ObjectMeta
	for i := range all.Providers {
		p := &all.Providers[i]
		if (routing.Ref{Kind: v1beta1.KindLLMProvider, Namespace: p.Namespace, Name: p.Name}) == ref {
			candidate = &p.ObjectMeta
		}
		newest = latest(newest, p.CreationTimestamp.Time)
	}
	for i := range all.Routes {
		r := &all.Routes[i]
		if (routing.Ref{Kind: v1beta1.KindLLMRoute, Namespace: r.Namespace, Name: r.Name}) == ref {
			candidate = &r.ObjectMeta
		}
		newest = latest(newest, r.CreationTimestamp.Time)
	}
	if candidate != nil { // an object that cannot be read takes no part
		candidate.CreationTimestamp = metav1.NewTime(newest.Add(time.Second))
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
