package routing

import "iter"

// rules gives every rule that a request or a connection may go by, each once.
func (t *Table) rules() iter.Seq2[*Host, *Rule] {
	return func(yield func(*Host, *Rule) bool) {
		all := func(h *Host) bool {
			for _, r := range h.Rules {
				if !yield(h, r) {
					return false
				}
			}
			return true
		}
		for _, h := range t.hosts {
			if !all(h) {
				return
			}
		}
		for _, l := range t.listeners {
			for i, s := range l.Servers {
				if i == 0 || l.TLS { // without TLS, the servers of a port share their hosts
					for _, h := range s.hosts.all() {
						if !all(h) {
							return
						}
					}
				}
				for _, r := range s.sni.all() {
					if !yield(nil, r) {
						return
					}
				}
			}
		}
	}
}

// Targets gives every target that a request, or a copy of one, may go to: a provider once for each backend that uses it.
func (t *Table) Targets() iter.Seq[*Target] {
	return func(yield func(*Target) bool) {
		for _, r := range t.rules() {
			for target := range r.targets() {
				if !yield(target) {
					return
				}
			}
		}
	}
}

// targets gives every target that a request that the rule takes, or a copy of one, may go to.
func (r *Rule) targets() iter.Seq[*Target] {
	return func(yield func(*Target) bool) {
		if r.Action != nil {
			for i := range r.Action.Mirrors {
				if m := &r.Action.Mirrors[i]; m.Target != nil && !yield(m.Target) {
					return
				}
			}
		}
		for _, l := range r.Levels {
			for _, b := range l.Backends {
				if b.Target != nil && !yield(b.Target) {
					return
				}
			}
		}
	}
}
