package trace_test

import (
	"context"
	"encoding/binary"
	"math"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"

	"remora.dev/remora/sidecar/trace"
)

const (
	ids    = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
	header = "00-" + ids + "-01"
)

func TestAHeaderIsReadAsTheSpecificationSays(t *testing.T) {
	f := func(header string, ok, sampled, random bool) {
		t.Helper()
		c, got := trace.Parse([]byte(header))
		if got != ok || c.Sampled != sampled || c.Random != random {
			t.Errorf("%q: %v, %+v", header, got, c)
		}
		if ok && c.Trace.String()+"-"+c.Span.String() != ids {
			t.Errorf("%q: read as %s-%s", header, c.Trace, c.Span)
		}
		if !ok && !c.IsZero() {
			t.Errorf("%q: is none, and yet %+v", header, c)
		}
	}
	valid := func(header string, sampled, random bool) { t.Helper(); f(header, true, sampled, random) }
	invalid := func(header string) { t.Helper(); f(header, false, false, false) }

	valid(header, true, false)
	valid("00-"+ids+"-00", false, false)
	valid("00-"+ids+"-02", false, true)
	valid("00-"+ids+"-03", true, true)
	valid("00-"+ids+"-ff", true, true)
	valid("00-"+ids+"-08", false, false)
	valid("cc-"+ids+"-01", true, false)
	valid("01-"+ids+"-01-what the-future will bring", true, false)
	valid("fe-"+ids+"-00-", false, false)

	invalid("")
	invalid("00")
	invalid("ff-" + ids + "-01")
	invalid("00-" + ids + "-01-more")
	invalid("00-" + ids + "-01-")
	invalid("00-" + ids + "-010")
	invalid("01-" + ids + "-01.more")
	invalid("01-" + ids + "-011")
	invalid("00-" + ids + "-0")
	invalid("00-" + ids + "-0x")
	invalid("00-" + ids + "-")
	invalid("00-" + ids)
	invalid("0-" + ids + "-01")
	invalid("000-" + ids + "-01")
	invalid("0X-" + ids + "-01")
	invalid("FF-" + ids + "-01")
	invalid(" " + header)
	invalid(header + " ")
	invalid(strings.ReplaceAll(header, "-", "_"))
	invalid(strings.ToUpper(header))
	invalid("00-" + strings.Replace(ids, "f", "F", 1) + "-01")
	invalid("00-" + strings.Replace(ids, "f", "g", 1) + "-01")
	invalid("00-" + strings.Replace(ids, "f", ".", 1) + "-01")
	invalid("00-00000000000000000000000000000000-b7ad6b7169203331-01")
	invalid("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01")
	invalid("00-" + strings.Repeat("-", 49) + "-01")
}

func TestWhatIsWrittenIsWhatOpenTelemetryReads(t *testing.T) {
	for _, sampled := range []bool{true, false} {
		c := trace.New(sampled)
		carrier := propagation.HeaderCarrier(http.Header{})
		carrier.Set(trace.Header, string(c.AppendHeader(nil)))
		theirs := otel.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
		if !theirs.IsValid() || theirs.TraceID() != otel.TraceID(c.Trace) || theirs.SpanID() != otel.SpanID(c.Span) || theirs.IsSampled() != sampled {
			t.Errorf("%s is read as %+v", carrier.Get(trace.Header), theirs)
		}
		again, ok := trace.Parse(c.AppendHeader(nil))
		if !ok || again != c {
			t.Errorf("%+v comes back as %+v", c, again)
		}
	}
}

func TestAParentsDecisionHoldsWhateverTheShareIs(t *testing.T) {
	for _, parent := range []string{"00-" + ids + "-00", "00-" + ids + "-01", "00-" + ids + "-02", "00-" + ids + "-03"} {
		p, ok := trace.Parse([]byte(parent))
		if !ok {
			t.Fatal(parent)
		}
		for _, share := range []float64{0, 0.5, 1, math.NaN()} {
			c := trace.Begin(p, share)
			if c.Trace != p.Trace || c.Sampled != p.Sampled || c.Random != p.Random {
				t.Errorf("below %s with a share of %v: %s", parent, share, c.AppendHeader(nil))
			}
			if c.Span == p.Span || c.Span == (trace.SpanID{}) {
				t.Errorf("below %s: the span is %q", parent, c.Span)
			}
		}
	}
}

func TestATraceThatBeginsHereIsSampledAsOpenTelemetrySamples(t *testing.T) {
	for _, share := range []float64{-1, 0, 1e-9, 0.01, 0.3, 0.5, 0.999, 1, 2} {
		theirs := sdk.TraceIDRatioBased(share)
		judge := func(id trace.ID) {
			t.Helper()
			want := theirs.ShouldSample(sdk.SamplingParameters{ParentContext: t.Context(), TraceID: otel.TraceID(id)}).Decision == sdk.RecordAndSample
			if got := trace.Sampled(id, share); got != want {
				t.Errorf("share %v, trace %s: %v, and OpenTelemetry says %v", share, id, got, want)
			}
		}
		for range 2000 {
			c := trace.Begin(trace.Context{}, share)
			if c.Sampled != trace.Sampled(c.Trace, share) || !c.Random {
				t.Fatalf("share %v: %+v", share, c)
			}
			judge(c.Trace)
		}
		bound := uint64(min(max(share, 0), 0.999)*(1<<63)) << 1
		for _, edge := range []uint64{0, 1, 2, 1 << 63, math.MaxUint64, bound - 1, bound, bound + 1, bound + 2} {
			var id trace.ID
			id[0] = 1
			binary.BigEndian.PutUint64(id[8:], edge)
			judge(id)
		}
	}
	if trace.Sampled(trace.New(false).Trace, math.NaN()) {
		t.Error("a share that is no number samples")
	}
}

func TestNoneHasNoText(t *testing.T) {
	var c trace.Context
	if c.Trace.String() != "" || c.Span.String() != "" {
		t.Errorf("%q, %q", c.Trace, c.Span)
	}
}

func TestARequestWithoutASampledTraceAllocatesNothing(t *testing.T) {
	parent, value := []byte(header), make([]byte, 0, 64)
	allocated := testing.AllocsPerRun(1000, func() {
		p, _ := trace.Parse(parent)
		value = trace.Begin(p, 0).AppendHeader(value[:0])
		value = trace.Begin(trace.Context{}, 0.5).AppendHeader(value[:0])
	})
	if allocated != 0 {
		t.Errorf("%v allocations", allocated)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(header))
	f.Add([]byte("cc-" + ids + "-01-more"))
	f.Fuzz(func(t *testing.T, value []byte) {
		c, ok := trace.Parse(value)
		carrier := propagation.HeaderCarrier(http.Header{})
		carrier.Set(trace.Header, string(value))
		theirs := otel.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
		// OpenTelemetry refuses flags of version 00 that it does not know; the specification says that they are to be ignored.
		if theirs.IsValid() && !ok {
			t.Errorf("%q: OpenTelemetry reads it, and we do not", value)
		}
		if ok && (c.Trace == trace.ID{} || c.Span == trace.SpanID{}) {
			t.Errorf("%q: an id is zero", value)
		}
		if again, ok2 := trace.Parse(c.AppendHeader(nil)); ok && (!ok2 || again != c) {
			t.Errorf("%q: %+v comes back as %+v", value, c, again)
		}
	})
}

func BenchmarkBegin(b *testing.B) {
	b.ReportAllocs()
	parent, value := []byte(header), make([]byte, 0, 64)
	for b.Loop() {
		p, _ := trace.Parse(parent)
		value = trace.Begin(p, 0.01).AppendHeader(value[:0])
	}
}
