package cases

import (
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
)

// Mutations gives objects of the corpus with one to three places in their spec made different: always the same ones, and
// about as many valid as invalid ones.
func Mutations(t *testing.T, n int) iter.Seq[map[string]any] {
	t.Helper()
	m := &mutator{rand.New(rand.NewPCG(1, 2)), map[string][]any{}}
	var objects []map[string]any
	for _, c := range All(t) {
		for _, tree := range c.Trees(t) {
			collect(m.donors, tree["spec"])
			if len(c.Text) < 5000 { // a rule more of 257 is nothing new
				objects = append(objects, tree)
			}
		}
	}
	return func(yield func(map[string]any) bool) {
		for range n {
			object := runtime.DeepCopyJSON(objects[m.IntN(len(objects))])
			for range 1 + m.IntN(3) {
				object["spec"] = m.change("spec", object["spec"])
			}
			if !yield(object) {
				return
			}
		}
	}
}

type mutator struct {
	*rand.Rand
	donors map[string][]any // values by field name, right and wrong ones
}

// collect gathers the values of every field.
func collect(donors map[string][]any, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			donors[name] = append(donors[name], v[name])
			collect(donors, v[name])
		}
	case []any:
		for _, e := range v {
			collect(donors, e)
		}
	}
}

var extremes = []any{
	nil, "", "x", strings.Repeat("x", 64), strings.Repeat("x", 300), strings.Repeat("é", 253), strings.Repeat("x", 1100), strings.Repeat("x", 9000),
	"a.b", "a_b", "A.B", "a b", "a\nb", "bücher", "*", "/", "//", "/..", "http://a", "a:1", "-a", "a-", ".", "a..b", "1.2.3.4", "::1",
	"SIMPLE", "MUTUAL", "DISABLE", "mesh", "reset", "0", "0s", "5m", "-5m", "1e3", "99999999h", ".5s", "1h1h", "µs", "1µs", "null", "true",
	"64Mi", "64mi", "64m", "1e30", "-1", "0.5", "1.5Gi", "+5Ki", "1Ti", " 1Mi", "10m0.5s", "24h0.1s", "api-key", "x-api-key", "a&b=c", "a#b", "a%20b", "${A}",
	int64(0), int64(1), int64(-1), int64(50), int64(100), int64(101), int64(65535), int64(65536), int64(1000000), int64(1000001), int64(1) << 31, int64(1) << 62, 0.5, 1e300, true, false,
	map[string]any{}, map[string]any{"": ""}, map[string]any{"a": nil}, map[string]any{"name": ""}, map[string]any{"exact": "a", "prefix": "a"},
	[]any{}, []any{nil}, []any{""}, []any{"a"}, []any{map[string]any{}},
}

// change gives v with one place in it made different.
func (m *mutator) change(name string, v any) any {
	if m.IntN(6) == 0 {
		return m.other(name)
	}
	switch v := v.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		switch {
		case len(names) == 0 || m.IntN(8) == 0:
			add := slices.Sorted(maps.Keys(m.donors))
			field := add[m.IntN(len(add))]
			v[field] = m.other(field)
		case m.IntN(8) == 0:
			delete(v, names[m.IntN(len(names))])
		default:
			field := names[m.IntN(len(names))]
			v[field] = m.change(field, v[field])
		}
		return v
	case []any:
		switch {
		case len(v) == 0 || m.IntN(10) == 0:
			return append(v, m.other(name))
		case m.IntN(10) == 0:
			for len(v) < 33 {
				v = append(v, runtime.DeepCopyJSONValue(v[m.IntN(len(v))]))
			}
			return v
		case m.IntN(10) == 0:
			return slices.Delete(v, 0, 1)
		}
		i := m.IntN(len(v))
		v[i] = m.change(name, v[i])
		return v
	}
	return m.other(name)
}

func (m *mutator) other(name string) any {
	if known := m.donors[name]; len(known) > 0 && m.IntN(3) > 0 {
		return runtime.DeepCopyJSONValue(known[m.IntN(len(known))])
	}
	return runtime.DeepCopyJSONValue(extremes[m.IntN(len(extremes))])
}
