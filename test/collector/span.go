package collector

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	api "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is one that came. Values of attributes are string, bool, int64 or float64.
type Span struct {
	Trace, ID, Parent string // in digits; Parent may be empty
	Name              string
	Kind              string // SERVER or CLIENT
	Start, End        time.Time
	Attributes        map[string]any
	Resource          map[string]any
	Error             string // message of its status, where that is an error
	Flags             uint32
	Scope, Schema     string
}

// Text gives an attribute; empty: it has none, or none that is a string.
func (s *Span) Text(key string) string {
	text, _ := s.Attributes[key].(string)
	return text
}

// Int gives an attribute; 0: it has none, or none that is an integer.
func (s *Span) Int(key string) int64 {
	n, _ := s.Attributes[key].(int64)
	return n
}

func spansOf(message *api.ExportTraceServiceRequest) ([]Span, error) {
	var all []Span
	for _, r := range message.ResourceSpans {
		resource, err := attributes(r.Resource.GetAttributes())
		if err != nil {
			return nil, err
		}
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				span, err := spanOf(s)
				if err != nil {
					return nil, err
				}
				span.Resource, span.Scope, span.Schema = resource, scope.Scope.GetName(), scope.SchemaUrl
				all = append(all, span)
			}
		}
	}
	return all, nil
}

func spanOf(s *traces.Span) (Span, error) {
	span := Span{
		Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId), Name: s.Name,
		Kind:  strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"),
		Start: time.Unix(0, int64(s.StartTimeUnixNano)), End: time.Unix(0, int64(s.EndTimeUnixNano)), Flags: s.Flags,
	}
	var err error
	span.Attributes, err = attributes(s.Attributes)
	if s.Status.GetCode() == traces.Status_STATUS_CODE_ERROR {
		span.Error = cmp.Or(s.Status.GetMessage(), "error")
	}
	switch {
	case err != nil:
	case len(s.TraceId) != 16 || len(s.SpanId) != 8 || len(s.ParentSpanId) != 0 && len(s.ParentSpanId) != 8:
		err = fmt.Errorf("span %q has ids of another length", s.Name)
	case s.Name == "":
		err = fmt.Errorf("span %s has no name", span.ID)
	case span.End.Before(span.Start):
		err = fmt.Errorf("span %q ends before it begins", s.Name)
	}
	return span, err
}

func attributes(from []*common.KeyValue) (map[string]any, error) {
	all := map[string]any{}
	for _, kv := range from {
		if _, twice := all[kv.Key]; twice || kv.Key == "" {
			return nil, fmt.Errorf("attribute %q comes twice, or has no name", kv.Key)
		}
		switch v := kv.Value.GetValue().(type) {
		case *common.AnyValue_StringValue:
			all[kv.Key] = v.StringValue
		case *common.AnyValue_BoolValue:
			all[kv.Key] = v.BoolValue
		case *common.AnyValue_IntValue:
			all[kv.Key] = v.IntValue
		case *common.AnyValue_DoubleValue:
			all[kv.Key] = v.DoubleValue
		default:
			return nil, fmt.Errorf("attribute %q has a value of type %T", kv.Key, v)
		}
	}
	return all, nil
}

// Write prints spans for people: each trace as a tree, with the attributes that are named, or all.
func Write(w io.Writer, spans []Span, keys ...string) {
	below := map[string][]Span{}
	known := map[string]bool{}
	for _, s := range spans {
		known[s.ID] = true
	}
	for _, s := range spans {
		parent := s.Parent
		if !known[parent] {
			parent = s.Trace
		}
		below[parent] = append(below[parent], s)
	}
	var write func(of, indent string)
	write = func(of, indent string) {
		slices.SortStableFunc(below[of], func(a, b Span) int { return a.Start.Compare(b.Start) })
		for _, s := range below[of] {
			fmt.Fprintf(w, "%s%s %s %.1f ms", indent, s.Kind, s.Name, float64(s.End.Sub(s.Start))/float64(time.Millisecond))
			for _, key := range s.keys(keys) {
				fmt.Fprintf(w, " %s=%v", key, s.Attributes[key])
			}
			fmt.Fprintln(w)
			write(s.ID, indent+"  ")
		}
	}
	seen := map[string]bool{}
	for _, s := range spans {
		if !seen[s.Trace] {
			seen[s.Trace] = true
			fmt.Fprintf(w, "trace %s of %v\n", s.Trace, s.Resource["service.name"])
			write(s.Trace, "  ")
		}
	}
}

func (s *Span) keys(wanted []string) []string {
	var all []string
	for key := range s.Attributes {
		if len(wanted) == 0 || slices.Contains(wanted, key) {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	return all
}
