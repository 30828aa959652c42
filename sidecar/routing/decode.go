package routing

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	kjson "sigs.k8s.io/json"
)

// decode reads text into object and adds to f every field that the kind does not have, or the first
// value of a wrong type.
func decode(f *findings, text []byte, object any) {
	strict, err := kjson.UnmarshalStrict(text, object)
	for _, e := range strict {
		var field kjson.FieldError
		if !errors.As(e, &field) {
			f.invalid(UnreadableObject, "", "%s", sentence(e))
			continue
		}
		path := field.FieldPath()
		if strings.HasPrefix(e.Error(), "duplicate") {
			f.invalid(UnreadableObject, path, "is given twice: keep one")
			continue
		}
		f.invalid(UnknownField, path, "is not a field: %s", remedy(reflect.TypeOf(object).Elem(), path))
	}
	if err == nil {
		return
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		f.invalid(InvalidValue, wrong.Field, "is a %s, and must be %s", wrong.Value, typeWord(wrong.Type))
		return
	}
	f.invalid(InvalidValue, "", "cannot be read: %s", sentence(err))
}

// remedy proposes what may have been meant by the last name of a path.
func remedy(t reflect.Type, path string) string {
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		name, _, _ = strings.Cut(name, "[")
		if t = fieldOf(t, name); t == nil {
			return "remove it"
		}
	}
	known := fieldNames(element(t))
	last := names[len(names)-1]
	for _, k := range known {
		if strings.EqualFold(k, last) || oneEdit(k, last) {
			return "did you mean " + k + "?"
		}
	}
	return "remove it, or use one of " + strings.Join(known, ", ")
}

// oneEdit tells whether one edit (a letter more, less, other, or two swapped) makes b of a.
func oneEdit(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	switch len(b) - len(a) {
	case 0:
		return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:] || i < len(a) && a[i+1:] == b[i+1:]
	case 1:
		return a[i:] == b[i+1:]
	}
	return false
}

// element looks through pointers, lists and maps.
func element(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	return t
}

func fieldOf(t reflect.Type, name string) reflect.Type {
	if t.Kind() == reflect.Map { // the name is a key
		return t.Elem()
	}
	if t = element(t); t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return f.Type
		}
		if f.Anonymous && tag == "" {
			if found := fieldOf(f.Type, name); found != nil {
				return found
			}
		}
	}
	return nil
}

func fieldNames(t reflect.Type) []string {
	var names []string
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && tag == "":
			names = append(names, fieldNames(f.Type)...)
		case tag != "" && tag != "-":
			names = append(names, tag)
		}
	}
	return names
}

func typeWord(t reflect.Type) string {
	switch element(t).Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int32, reflect.Int64, reflect.Int:
		return "a whole number"
	case reflect.Struct, reflect.Map:
		return "a map of fields"
	}
	return "a " + t.String()
}
