package watch

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/sidecar/routing"
)

// key names an object. Those that are exported to a namespace are not of it.
type key struct {
	kind, namespace, name string
	exported              bool
}

// place is where an object is written.
type place struct {
	file string
	line int
}

// String gives the form "conf/qwen.yaml:7".
func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// candidate is an object as it is written now.
type candidate struct {
	*document
	at      place
	ref     routing.Ref
	stamp   metav1.Time
	before  *version          // nil if it has never run
	refused []routing.Problem // why before runs in its stead
}

// unchanged tells whether the candidate says what has run before. Then nothing can be refused.
func (c *candidate) unchanged() bool {
	b := c.before.doc
	switch {
	case b.sum == c.sum:
		return true
	case c.provider != nil && b.provider != nil:
		return reflect.DeepEqual(c.provider.Spec, b.provider.Spec)
	case c.route != nil && b.route != nil:
		return reflect.DeepEqual(c.route.Spec, b.route.Spec)
	case c.other != nil:
		return reflect.DeepEqual(c.other, b.other)
	}
	return false
}

// set is all that is written, on its way into Compile.
type set struct {
	namespace  string // of the workload
	many       bool   // it is a gateway's: objects of other namespaces count, too
	candidates []*candidate
	aside      []routing.Unreadable  // what cannot take part, under names of their own
	names      map[routing.Ref]named // what those names mean
	incomplete bool
	keysIn     string // the Secret that the others were taken from, if they were
	cas        string // the authorities that were in it
	objects    int    // of our kinds
	ignored    []named
}

type named struct {
	object routing.Ref
	at     place
}

// put sets an object aside. Its hosts stay owned, so it counts as one of the namespace that the folder stands
// for, and its name there tells it from another that runs.
func (s *set) put(object routing.Ref, at place, u routing.Unreadable, problems ...routing.Problem) {
	alias := routing.Ref{Kind: object.Kind, Namespace: s.namespace, Name: fmt.Sprintf("%s (%s)", object.Name, at)}
	if s.many {
		alias.Namespace = object.Namespace
	}
	s.names[alias] = named{object, at}
	u.Object, u.Problems = alias, nil
	for _, p := range problems {
		p.Object = alias
		u.Problems = append(u.Problems, p)
	}
	s.aside = append(s.aside, u)
}

// gather collects what the files say.
func (s *source) gather(now time.Time) *set {
	n := s.chooseNamespaces()
	all := &set{namespace: n.own, many: n.many, names: map[routing.Ref]named{}}
	first := s.clock.IsZero()
	if s.clock = s.clock.Add(2 * time.Second); now.After(s.clock) {
		s.clock = now // always later than before, in the whole seconds that a creation time has
	}
	chosen := s.choose(n)
	for _, f := range s.files {
		all.incomplete = all.incomplete || !f.known
		for i := range f.docs {
			d := &f.docs[i]
			at := place{f.name, d.line}
			ref := d.ref
			ref.Namespace = cmp.Or(ref.Namespace, n.unnamed)
			k := d.id(n.unnamed)
			switch {
			case !d.ours(), !n.has(d) && d.other != nil: // nothing of the pod's namespace can name it
				all.ignored = append(all.ignored, named{d.ref, at})
				continue
			case !n.has(d):
				all.put(ref, at, d.broken(), routing.Problem{
					Severity: routing.Invalid, Code: routing.InvalidValue, Field: "metadata.namespace",
					Message: fmt.Sprintf("is %q, and a folder stands for one namespace, here %q: use that one, or put the object into a folder of its own", ref.Namespace, all.namespace),
				})
			case chosen[k] != d:
				all.put(ref, at, d.broken(), routing.Problem{
					Severity: routing.Invalid, Code: routing.DuplicateObject, Field: "metadata.name",
					Message: fmt.Sprintf("there is another %s: rename one of them, or remove it", ref),
				})
			default:
				c := &candidate{document: d, at: at, ref: ref, before: s.history.accepted[k]}
				c.stamp = s.stamp(c, first)
				all.candidates = append(all.candidates, c)
			}
			all.objects++
		}
	}
	all.incomplete = all.incomplete || !all.configured()
	return all
}

// choose decides which of several documents of one name is meant: the one that ran before, else the first.
func (s *source) choose(n namespaces) map[key]*document {
	chosen, best := map[key]*document{}, map[key]int{}
	for _, f := range s.files {
		for i := range f.docs {
			d := &f.docs[i]
			if !d.ours() || !n.has(d) {
				continue
			}
			k := d.id(n.unnamed)
			score := 1
			if v := s.history.accepted[k]; v != nil {
				if v.file == f.name {
					score += 2
				}
				if v.doc.sum == d.sum {
					score++
				}
			}
			if score > best[k] {
				chosen[k], best[k] = d, score
			}
		}
	}
	return chosen
}

// stamp gives the creation time that decides who has a host that several objects claim. What changed
// is newer than what did not, and what has never run is newer than that.
func (s *source) stamp(c *candidate, first bool) metav1.Time {
	switch {
	case first:
		return c.written()
	case c.before == nil:
		return metav1.NewTime(s.clock.Add(time.Second))
	case c.unchanged():
		return c.before.stamp
	}
	return metav1.NewTime(s.clock)
}

func (d *document) written() metav1.Time {
	switch {
	case d.provider != nil:
		return d.provider.CreationTimestamp
	case d.route != nil:
		return d.route.CreationTimestamp
	}
	return created(d.other)
}

// configured tells whether there is an LLMProvider or LLMRoute at all. Where there is none, the path may be
// wrong, or the files are just being replaced: then nothing may be passed on. A gateway passes nothing on, and needs none.
func (s *set) configured() bool {
	return s.many || len(s.aside) > 0 || slices.ContainsFunc(s.candidates, func(c *candidate) bool {
		return c.provider != nil || c.route != nil
	})
}

// input gives Compile what is written.
func (s *set) input() routing.Objects {
	in := routing.Objects{Secrets: []routing.Secret{}, KeysIn: s.keysIn, TrustedCAs: s.cas, Incomplete: s.incomplete, Unreadable: slices.Clone(s.aside)}
	for _, c := range s.candidates {
		d, stamp := c.document, c.stamp
		if c.refused != nil {
			d, stamp = c.before.doc, c.before.stamp
		}
		switch {
		case d.provider != nil && d.exported:
			p := *d.provider
			p.CreationTimestamp = stamp
			in.Exported = append(in.Exported, routing.Exported{To: s.namespace, Provider: p})
		case d.provider != nil:
			p := *d.provider
			p.Namespace, p.CreationTimestamp = c.ref.Namespace, stamp
			in.Providers = append(in.Providers, p)
		case d.route != nil:
			r := *d.route
			r.Namespace, r.CreationTimestamp = c.ref.Namespace, stamp
			in.Routes = append(in.Routes, r)
		case d.secret != nil:
			secret := *d.secret
			if !d.exported {
				secret.Namespace = c.ref.Namespace
			}
			in.Secrets = append(in.Secrets, secret)
		case d.other != nil:
			addOther(&in, d.other, c.ref.Namespace, stamp)
		case d.bad != nil:
			u := *d.bad
			u.Object, u.Problems = c.ref, nil
			if d.exported {
				u.To = s.namespace
			}
			for _, p := range d.bad.Problems {
				p.Object = c.ref
				u.Problems = append(u.Problems, p)
			}
			in.Unreadable = append(in.Unreadable, u)
		}
	}
	if in.Services == nil && s.knowsServices(&in) {
		in.Services = []routing.Service{}
	}
	return in
}
