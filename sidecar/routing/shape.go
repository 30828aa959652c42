package routing

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shape fits what was written to the Go type it should be. What does not fit is reported, never shown
// (it may be a key), and taken out, so that the rest can be read and judged.
type shape struct {
	*findings
	taken []string // paths of what was taken out, and of what may have been meant by it
}

// silences tells whether a problem is there only because something was taken out.
func (s *shape) silences(p Problem) bool {
	return slices.ContainsFunc(s.taken, func(path string) bool {
		switch path {
		case "spec.tls.mode":
			return leadsTo("spec.tls", p.Field)
		case "spec.tls.allowInsecureKey":
			return p.Code == KeyInPlainText
		}
		return leadsTo(path, p.Field) || leadsTo(p.Field, path)
	})
}

func leadsTo(path, deeper string) bool {
	rest, found := strings.CutPrefix(deeper, path)
	return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// sizeLike is the schema's pattern: the letters that make bytes and multiples of them, and not 64m, which is a fraction of one.
var sizeLike = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?([kMG]|[KMG]i)?$`)

func isSize(v any) bool {
	text, ok := v.(string)
	return ok && sizeLike.MatchString(text)
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// fit gives what a value of type t can hold of v. false means: nothing.
func (s *shape) fit(v any, t reflect.Type, path string) (any, bool) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return v, s.readable(v, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		if fields, ok := v.(map[string]any); ok {
			return s.fitFields(fields, t, path), true
		}
	case reflect.Map:
		if entries, ok := v.(map[string]any); ok {
			return s.fitEntries(entries, t, path), true
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return v, s.isBase64(v, path)
		}
		if list, ok := v.([]any); ok {
			return s.fitList(list, t, path), true
		}
	case reflect.Int32, reflect.Int64:
		if n, ok := v.(int64); ok {
			if t.Kind() == reflect.Int64 || math.MinInt32 <= n && n <= math.MaxInt32 {
				return n, true
			}
			s.take(path, "%d is far out of range: use a smaller number", n)
			return nil, false
		}
	default:
		if reflect.TypeOf(v) == t || t.Kind() == reflect.String && reflect.TypeOf(v) == reflect.TypeFor[string]() {
			return v, true
		}
	}
	s.take(path, "is %s, and must be %s", valueWord(v), typeWord(t, v))
	return nil, false
}

// nameLike tells the names of fields from keys that were pasted in the wrong place, which have digits.
var nameLike = regexp.MustCompile(`^[A-Za-z]{1,32}([-_./][A-Za-z]{1,32}){0,3}$`)

func (s *shape) take(path, format string, args ...any) {
	s.invalid(InvalidValue, path, format, args...)
	s.taken = append(s.taken, path)
}

func (s *shape) fitFields(fields map[string]any, t reflect.Type, path string) map[string]any {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		at := join(path, name)
		field := fieldOf(t, name)
		if field == nil {
			remedy := s.unknown(fields, t, path, name)
			if !nameLike.MatchString(name) {
				s.invalid(UnknownField, join(path, "…"), "is not a field, and its name is not shown since it may be a key: %s", remedy)
			} else {
				s.invalid(UnknownField, at, "is not a field: %s", remedy)
			}
			s.taken = append(s.taken, at)
			continue
		}
		if fields[name] == nil {
			continue // null is as good as absent, as it is for the API server
		}
		if v, ok := s.fit(fields[name], field, at); ok {
			out[name] = v
		}
	}
	return out
}

func (s *shape) fitEntries(entries map[string]any, t reflect.Type, path string) map[string]any {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if v, ok := s.fit(entries[name], t.Elem(), path+"["+name+"]"); ok {
			out[name] = v
		}
	}
	return out
}

// fitList keeps the places of what it takes out, so that the rest is reported where it was written.
func (s *shape) fitList(list []any, t reflect.Type, path string) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i], _ = s.fit(list[i], t.Elem(), fmt.Sprintf("%s[%d]", path, i))
	}
	return out
}

func (s *shape) isBase64(v any, path string) bool {
	text, ok := v.(string)
	if ok {
		_, err := base64.StdEncoding.DecodeString(text)
		ok = err == nil
	}
	if !ok {
		s.take(path, "is not base64: give the output of base64 -w0 FILE, where FILE is PEM")
	}
	return ok
}

// readable asks a type that reads itself whether it can.
func (s *shape) readable(v any, t reflect.Type, path string) bool {
	text, err := json.Marshal(v)
	if t == reflect.TypeFor[resource.Quantity]() {
		if _, whole := v.(int64); !whole && !isSize(v) {
			s.take(path, "is not a size: write one such as 512Ki, 64Mi or 1Gi")
			return false
		}
	}
	if err == nil && v != nil && json.Unmarshal(text, reflect.New(t).Interface()) == nil {
		return true
	}
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		s.take(path, "is not a duration: write one such as 30s, 5m or 1m30s, or 0s for no limit")
	case reflect.TypeFor[metav1.Time]():
		s.take(path, "is not a time: write one such as 2026-01-31T08:00:00Z, or remove it")
	default:
		s.take(path, "cannot be read: remove it")
	}
	return false
}

// unknown proposes what may have been meant by a name, and takes it for that.
func (s *shape) unknown(fields map[string]any, t reflect.Type, path, name string) (remedy string) {
	known := fieldNames(t)
	for _, k := range known {
		if strings.EqualFold(k, name) || oneEdit(k, name) {
			if fields[k] == nil {
				s.taken = append(s.taken, join(path, k))
			}
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

// fieldOf gives the type of a field by its JSON name; nil where there is none.
func fieldOf(t reflect.Type, name string) reflect.Type {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name && tag != "" {
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

func valueWord(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return "a number"
}

// typeWord says what a type wants, and what to do to the value that it got.
func typeWord(t reflect.Type, v any) string {
	text, _ := v.(string)
	switch t.Kind() {
	case reflect.String:
		switch v.(type) {
		case nil:
			return "a string: give one, or remove the name"
		case []any, map[string]any:
			return "a single string"
		}
		return "a string: put it in quotes"
	case reflect.Bool:
		if _, err := strconv.ParseBool(text); err == nil {
			return "true or false: remove the quotes"
		}
		return "true or false"
	case reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return "a whole number: remove the quotes"
		}
		return "a whole number, without fraction and exponent"
	case reflect.Slice:
		return "a list: begin each entry with a hyphen"
	case reflect.Struct:
		return "a map with the fields " + strings.Join(fieldNames(t), ", ")
	}
	return "a map: write name: value, one a line"
}
