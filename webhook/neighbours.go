package main

import (
	"cmp"
	"maps"
)

// neighbours gives those of the others without which a judgement on a change would come out differently. Compiling the
// 10,000 objects of a namespace takes a third of a second; an edit touches a few of them.
//
// A change can make a difference to the hosts that it names, and, where it is of a provider, to those of the routes that
// use its host. Everything that has a say in these hosts is needed. What else is compiled along, without all that it
// would need, comes out the same before and after, and so tells nothing.
func neighbours(others []*object, before, after *object) []*object {
	var own, need, rules = set{}, set{}, set{}
	provider := false
	for _, o := range []*object{before, after} {
		if o == nil {
			continue
		}
		if o.anything {
			return others
		}
		provider = provider || o.isProvider()
		own.add(o.host)
		need.add(o.host)
		need.add(o.backends...)
		rules.add(o.rules...)
	}
	for _, o := range others {
		if o.isRoute() && (own[o.host] || provider && own.hasAny(o.backends)) {
			need.add(o.host)
			need.add(o.backends...)
		}
	}

	// Whether anybody else uses a host, in that form, or has a rule of that name, decides too. One that does is enough: the
	// first in Compile's order, whose form of the host is the one that is shown.
	used, named := witnesses{}, witnesses{}
	for _, o := range others {
		if !o.isRoute() {
			continue
		}
		for i, b := range o.backends {
			if need[b] {
				used.offer(o.written[i], o)
			}
		}
		for _, name := range o.rules {
			if rules[name] {
				named.offer(name, o)
			}
		}
	}
	maps.DeleteFunc(rules, func(name string, _ bool) bool { return named[name] != nil })
	witness := map[*object]bool{}
	for _, all := range []witnesses{used, named} {
		for _, o := range all {
			witness[o] = true
		}
	}

	var found []*object
	for _, o := range others {
		if o.anything || need[o.host] || witness[o] || o.isRoute() && provider && own.hasAny(o.backends) || o.isProvider() && rules.hasAny(o.rules) {
			found = append(found, o)
		}
	}
	if len(found) == 0 && len(others) > 0 {
		return others[:1] // so that the change is not taken for the end of all configuration
	}
	return found
}

// witnesses are the oldest objects, then those with the lesser name, that bear witness to something.
type witnesses map[string]*object

func (w witnesses) offer(what string, o *object) {
	if p := w[what]; p == nil || cmp.Or(o.CreationTimestamp.Compare(p.CreationTimestamp.Time), cmp.Compare(o.Name, p.Name)) < 0 {
		w[what] = o
	}
}

type set map[string]bool

func (s set) add(all ...string) {
	for _, e := range all {
		s[e] = true
	}
}

func (s set) hasAny(all []string) bool {
	for _, e := range all {
		if s[e] {
			return true
		}
	}
	return false
}
