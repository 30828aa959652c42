package routing

import "iter"

// Targets gives every target that a request may go to: a provider once for each backend that uses it.
func (t *Table) Targets() iter.Seq[*Target] {
	return func(yield func(*Target) bool) {
		for _, h := range t.hosts {
			for _, r := range h.Rules {
				for _, l := range r.Levels {
					for _, b := range l.Backends {
						if b.Target != nil && !yield(b.Target) {
							return
						}
					}
				}
			}
		}
	}
}
