package watch

import (
	"fmt"
	"maps"
)

// Add takes in a new object.
func (f *feed) Add(o any) error { return f.Update(o) }

// Update takes in an object that may have changed.
func (f *feed) Update(o any) error {
	object, ok := o.(*wireObject)
	if !ok {
		return fmt.Errorf("%T is not from the wire", o)
	}
	next := f.arrive(object)
	if next == f.objects[object.Name] {
		return nil
	}
	f.change(func() { f.objects[object.Name] = next })
	return nil
}

// Delete forgets an object.
func (f *feed) Delete(o any) error {
	object, ok := o.(*wireObject)
	if !ok {
		return fmt.Errorf("%T is not from the wire", o)
	}
	f.change(func() { delete(f.objects, object.Name) })
	return nil
}

// Replace takes in all that there is.
func (f *feed) Replace(all []any, _ string) error {
	objects := map[string]*arrival{}
	for _, o := range all {
		object, ok := o.(*wireObject)
		if !ok {
			return fmt.Errorf("%T is not from the wire", o)
		}
		objects[object.Name] = f.arrive(object)
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

func (f *feed) arrive(o *wireObject) *arrival {
	before := f.objects[o.Name]
	if before != nil && before.uid == o.UID && before.version == o.ResourceVersion {
		return before
	}
	return arrive(f.kind, o, before)
}
