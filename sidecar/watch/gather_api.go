package watch

import "remora.dev/remora/sidecar/routing"

// gather collects what the feeds have.
func (a *API) gather() *set {
	all := &set{namespace: a.Namespace, many: a.Gateway, keysIn: a.KeysSecret, names: map[routing.Ref]named{}}
	for _, f := range a.feeds {
		for _, arrived := range f.arrivals() {
			all.objects++
			if arrived.cas != "" {
				all.trust(arrived.cas, arrived.at)
			}
			for i := range arrived.docs {
				all.add(&arrived.docs[i], arrived.at, &a.history)
			}
		}
	}
	return all
}

// trust takes the authorities that are in the Secret of keys into the set.
func (s *set) trust(cas string, at place) {
	keys := refOf(secretKind, s.namespace, s.keysIn)
	s.cas, s.names[keys] = cas, named{keys, at}
}

// add takes a document of the API server into the set.
func (s *set) add(d *document, at place, h *history) {
	c := &candidate{document: d, at: at, ref: d.ref, stamp: d.written()}
	if v := h.accepted[d.id(s.namespace)]; v != nil && v.doc.uid == d.uid {
		c.before = v
	}
	s.candidates = append(s.candidates, c)
}
