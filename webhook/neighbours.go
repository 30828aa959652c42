package main

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

	var found []*object
	// Whether anybody else uses a host, or has a rule of that name, decides too; one that does is enough.
	used, named := set{}, set{}
	for _, o := range others {
		needed := o.anything || need[o.host]
		if o.isRoute() {
			for _, b := range o.backends {
				if need[b] && !used[b] {
					used.add(b)
					needed = true
				}
			}
			for _, name := range o.rules {
				if rules[name] && !named[name] {
					named.add(name)
					needed = true
				}
			}
			needed = needed || provider && own.hasAny(o.backends)
		}
		if needed {
			found = append(found, o)
		}
	}
	for name := range named {
		delete(rules, name)
	}
	for _, o := range others {
		if o.isProvider() && !o.anything && !need[o.host] && rules.hasAny(o.rules) {
			found = append(found, o)
		}
	}
	return found
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
