package watch

import (
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/sidecar/routing"
)

// shelf is the store of a Reflector that brings EndpointSlices.
type shelf struct {
	roll *roll
	side int
	feed *feed
}

// read gives what is needed of a slice; nil where it is of nothing that is called. A slice that cannot be read is of nothing.
func (s shelf) read(o any) (types.NamespacedName, *routing.EndpointSlice) {
	object := s.feed.taken(o)
	if object == nil {
		return types.NamespacedName{}, nil
	}
	slice, err := routing.DecodeEndpointSlice(object.raw, object.Namespace)
	if err != nil || sideOf(slice.Of) != s.side {
		return object.place(), nil
	}
	return object.place(), &slice
}

// write has f change the roll, unless another feed has taken over.
func (s shelf) write(f func()) {
	s.roll.mu.Lock()
	current := s.roll.sides[s.side].feed == s.feed
	if current {
		f()
	}
	s.roll.mu.Unlock()
	if current {
		s.roll.signal()
	}
}

// put takes in a slice as it is now.
func (s shelf) put(name types.NamespacedName, slice *routing.EndpointSlice) {
	if slice != nil {
		if _, wanted := s.roll.owners[slice.Of]; !wanted {
			slice = nil
		}
	}
	s.roll.put(s.side, name, slice)
}

// Add takes in a new slice.
func (s shelf) Add(o any) error { return s.Update(o) }

// Update takes in a slice that may have changed.
func (s shelf) Update(o any) error {
	if name, slice := s.read(o); name.Name != "" {
		s.write(func() { s.put(name, slice) })
	}
	return nil
}

// Delete forgets a slice.
func (s shelf) Delete(o any) error {
	if object := s.feed.taken(o); object != nil {
		s.write(func() { s.put(object.place(), nil) })
	}
	return nil
}

// Replace takes in all that there are.
func (s shelf) Replace(all []any, _ string) error {
	now := map[types.NamespacedName]*routing.EndpointSlice{}
	for _, o := range all {
		if name, slice := s.read(o); slice != nil {
			now[name] = slice
		}
	}
	s.write(func() {
		side := &s.roll.sides[s.side]
		for name := range side.slices {
			if now[name] == nil {
				s.put(name, nil)
			}
		}
		for name, slice := range now {
			s.put(name, slice)
		}
		side.synced = true
		for o := range s.roll.owners { // also those that have none
			s.roll.dirty[o] = true
		}
	})
	s.feed.change(func() {}) // it has answered
	return nil
}

// Resync has nothing to do: nobody asks for it.
func (s shelf) Resync() error { return nil }
