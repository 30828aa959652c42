package watch

import (
	"maps"

	"k8s.io/apimachinery/pkg/types"
)

// taken gives an object that a Reflector tells of, or nil where it is none that was asked for: what says that it is of
// another namespace, name or kind is not to be obeyed, whoever sends it.
func (f *feed) taken(o any) *wireObject {
	object, ok := o.(*wireObject)
	if !ok || object.Name == "" || object.Namespace == "" || f.only != "" && object.Name != f.only {
		return nil
	}
	if f.namespace != "" && object.Namespace != f.namespace {
		return nil
	}
	if object.Kind != "" && object.Kind != f.kind { // the items of some lists do not say it
		return nil
	}
	return object
}

// arrive gives what is kept of an object.
func (f *feed) arrive(object *wireObject, before *arrival) *arrival {
	next := arrive(f.kindOfFeed, object, before)
	if f.trim != nil && next != before {
		for i := range next.docs {
			f.trim(&next.docs[i])
		}
	}
	return next
}

// Add takes in a new object.
func (f *feed) Add(o any) error { return f.Update(o) }

// Update takes in an object that may have changed.
func (f *feed) Update(o any) error {
	object := f.taken(o)
	if object == nil {
		return nil
	}
	name := object.place()
	before := f.objects[name]
	next := f.arrive(object, before)
	switch {
	case next == before:
	case before != nil && f.kind == secretKind && next.uid == before.uid && next.rest == before.rest:
		f.mu.Lock() // telemetry only: what is compiled stays as it is
		f.objects[name] = next
		f.mu.Unlock()
		f.changed()
	default:
		f.change(func() { f.objects[name] = next })
	}
	return nil
}

// Delete forgets an object.
func (f *feed) Delete(o any) error {
	if object := f.taken(o); object != nil {
		f.change(func() { delete(f.objects, object.place()) })
	}
	return nil
}

// Replace takes in all that there is.
func (f *feed) Replace(all []any, _ string) error {
	objects := map[types.NamespacedName]*arrival{}
	for _, o := range all {
		if object := f.taken(o); object != nil {
			name := object.place()
			objects[name] = f.arrive(object, f.objects[name])
		}
	}
	if f.objects != nil && maps.Equal(f.objects, objects) {
		return nil
	}
	f.change(func() { f.objects = objects })
	return nil
}

// change writes to objects, which only the goroutine that asks does. It may read them without a lock.
func (f *feed) change(write func()) {
	f.mu.Lock()
	write()
	f.changes++
	f.mu.Unlock()
	f.changed()
}

// Resync has nothing to do: nobody asks for it.
func (f *feed) Resync() error { return nil }
