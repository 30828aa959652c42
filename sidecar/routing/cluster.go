package routing

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/istio"
)

// decodeCluster adds an object of a kind that the cluster or Istio has, and tells whether it is one: Service, InferencePool,
// VirtualService, DestinationRule or Gateway. What is wrong with it is a Problem of Compile.
func (o *Objects) decodeCluster(top map[string]any, twins []twin, ref Ref, version string) bool {
	if group, version, _ := strings.Cut(version, "/"); group == istio.Group && slices.Contains(istio.Versions, version) {
		switch ref.Kind {
		case istio.KindVirtualService:
			v, remarks := decodeIstio[istio.VirtualService](top, twins)
			v.Namespace, v.Remarks = ref.Namespace, remarks
			o.VirtualServices = append(o.VirtualServices, *v)
		case istio.KindDestinationRule:
			d, remarks := decodeIstio[istio.DestinationRule](top, twins)
			d.Namespace, d.Remarks = ref.Namespace, remarks
			o.DestinationRules = append(o.DestinationRules, *d)
		case istio.KindGateway:
			g, remarks := decodeIstio[istio.Gateway](top, twins)
			g.Namespace, g.Remarks = ref.Namespace, remarks
			o.Gateways = append(o.Gateways, *g)
		default:
			return false
		}
		return true
	}
	switch {
	case ref.Kind == KindService && version == "v1":
		o.Services = append(o.Services, decodeService(top, ref))
	case ref.Kind == KindInferencePool && version == PoolGroup+"/"+PoolVersion:
		o.InferencePools = append(o.InferencePools, decodePool(top, ref))
	default:
		return false
	}
	return true
}

// decodeIstio takes from an object what fits into T. It never fails: what does not fit is left out and remarked upon, by its path. In
// lists, what is left out keeps its place.
func decodeIstio[T any](top map[string]any, twins []twin) (*T, istio.Remarks) {
	var l lenient
	for _, t := range twins {
		l.remark(t.path, "is given twice, and the last one counts: keep one")
	}
	// Of metadata, what is of use; status is a controller's.
	metadata, _ := top["metadata"].(map[string]any)
	kept := map[string]any{}
	for _, name := range []string{"name", "creationTimestamp", "labels", "annotations", "generation"} {
		if v := metadata[name]; v != nil {
			kept[name] = v
		}
	}
	fitting, _ := l.fit(map[string]any{"metadata": kept, "spec": top["spec"]}, reflect.TypeFor[T](), "")
	text, err := json.Marshal(fitting)
	object := new(T)
	if err == nil {
		err = json.Unmarshal(text, object)
	}
	if err != nil { // cannot be: it fits
		l.remark("spec", "cannot be read")
	}
	l.remarks.Sort()
	return object, l.remarks
}

// lenient fits what was written to the Go type it should be, as shape does. But other programs read these objects too, and may make
// sense of what is left out.
type lenient struct{ remarks istio.Remarks }

func (l *lenient) remark(path, wrong string) {
	l.remarks = append(l.remarks, istio.Remark{Field: path, Wrong: wrong})
}

// fit gives what a value of type t can hold of v. false means: nothing.
func (l *lenient) fit(v any, t reflect.Type, path string) (any, bool) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		if text, err := json.Marshal(v); err == nil && v != nil && json.Unmarshal(text, reflect.New(t).Interface()) == nil {
			return v, true
		}
		if t == reflect.TypeFor[metav1.Duration]() {
			l.remark(path, "is not a duration, and is left out: write one such as 30s, 5m or 1m30s")
		} else {
			l.remark(path, "cannot be read, and is left out")
		}
		return nil, false
	}
	switch t.Kind() {
	case reflect.Struct:
		if fields, ok := v.(map[string]any); ok {
			return l.fitFields(fields, t, path), true
		}
	case reflect.Map:
		if entries, ok := v.(map[string]any); ok {
			out := map[string]any{}
			for name, entry := range entries {
				if entry, ok := l.fit(entry, t.Elem(), path+"["+name+"]"); ok {
					out[name] = entry
				}
			}
			return out, true
		}
	case reflect.Slice:
		if list, ok := v.([]any); ok {
			out := make([]any, len(list))
			for i := range list {
				out[i], _ = l.fit(list[i], t.Elem(), fmt.Sprintf("%s[%d]", path, i))
			}
			return out, true
		}
	case reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		if n, ok := wholeNumber(v); ok {
			if inRange(n, t.Kind()) {
				return n, true
			}
			l.remark(path, fmt.Sprintf("%d is far out of range, and is left out: use another number", n))
			return nil, false
		}
	case reflect.Float64:
		switch v.(type) {
		case int64, float64:
			return v, true
		}
		l.remark(path, "is "+valueWord(v)+", must be a number, and is left out")
		return nil, false
	default:
		if reflect.TypeOf(v) == t || t.Kind() == reflect.String && reflect.TypeOf(v) == reflect.TypeFor[string]() {
			return v, true
		}
	}
	l.remark(path, "is "+valueWord(v)+", is left out, and must be "+typeWord(t, v))
	return nil, false
}

// wholeNumber takes 5.0 for 5, as an API server does.
func wholeNumber(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), true
		}
	}
	return 0, false
}

func inRange(n int64, k reflect.Kind) bool {
	switch k {
	case reflect.Int32:
		return math.MinInt32 <= n && n <= math.MaxInt32
	case reflect.Uint32:
		return 0 <= n && n <= math.MaxUint32
	case reflect.Uint64:
		return 0 <= n
	}
	return true
}

// fieldLike tells the names of fields from what was pasted in the wrong place.
var fieldLike = regexp.MustCompile(`^[A-Za-z]+([0-9]{1,2}[A-Za-z]*){0,2}$`)

func (l *lenient) fitFields(fields map[string]any, t reflect.Type, path string) map[string]any {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if fields[name] == nil {
			continue
		}
		field := fieldOf(t, name)
		if field == nil || name == "-" {
			if len(name) > 64 || !fieldLike.MatchString(name) {
				name = "…"
			}
			l.remark(join(path, name), "")
		} else if v, ok := l.fit(fields[name], field, join(path, name)); ok {
			out[name] = v
		}
	}
	return out
}

// maxRemarks is how many fields of one object are named.
const maxRemarks = 50

// warnRemarks adds what was left out of an object of Istio's.
func warnRemarks(f *findings, remarks istio.Remarks) {
	for i, r := range remarks {
		switch {
		case i == maxRemarks:
			f.warn(FieldNotHonoured, "spec", "%d more fields are not honoured", len(remarks)-i)
			return
		case r.Wrong == "":
			f.warn(FieldNotHonoured, r.Field, "is not honoured: it has no effect on calls that go through Remora")
		default:
			f.warn(InvalidValue, r.Field, "%s", r.Wrong)
		}
	}
}
