package otlp

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/test/collector"
)

// untraced gives what costs nothing: a trace that is not sampled, none at all, and one where no collector is named.
func untraced() map[string]struct {
	record   *record.Record
	settings *telemetry.Settings
} {
	type pair = struct {
		record   *record.Record
		settings *telemetry.Settings
	}
	unsampled, none := sampled(), sampled()
	unsampled.Trace.Sampled = false
	none.Trace.Sampled, none.Trace.Trace = false, [16]byte{}
	return map[string]pair{
		"unsampled": {unsampled, to("http://collector.example:4318")},
		"untraced":  {none, to("http://collector.example:4318")},
		"off":       {sampled(), telemetry.Default()},
	}
}

func TestARequestThatIsNotSampledCostsNoMemoryAndNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which ends when all its goroutines have
		r := newRig(t)
		r.dial = func(context.Context, string, string) (net.Conn, error) {
			t.Error("a collector is called")
			return nil, net.ErrClosed
		}
		for name, x := range untraced() {
			if n := testing.AllocsPerRun(1000, func() { r.Record(x.record, x.settings) }); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
		r.inside(func() {
			if r.ended != nil || r.queue.batches != nil || r.targets[0] != nil {
				t.Error("there is a goroutine, or a target, and nothing to send")
			}
		})
	})
}

func TestRequestsOfManyGoroutinesAreAllCounted(t *testing.T) {
	c := collecting(t, collector.Options{})
	r := newRig(t)
	s := to(c.URL)
	const goroutines, each = 8, 1000
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range each {
				r.Record(sampled(), s)
			}
		})
	}
	all.Wait()
	r.flush()
	sent, dropped := r.counted.SpansSent().Get(), r.counted.SpansDropped(droppedQueueFull).Get()
	if sent+dropped != goroutines*each*spansOfSampled || int(sent) != len(c.Spans()) {
		t.Errorf("%d are sent, %d dropped, and %d came", sent, dropped, len(c.Spans()))
	}
	if sent == 0 {
		t.Error("none came")
	}
}

func BenchmarkRecord(b *testing.B) {
	for name, x := range untraced() {
		b.Run(name, func(b *testing.B) {
			e := New(Options{Metrics: metrics.New()})
			b.ReportAllocs()
			for b.Loop() {
				e.Record(x.record, x.settings)
			}
		})
	}
	b.Run("sampled", func(b *testing.B) {
		c, err := collector.Start(collector.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		e, s, r := New(Options{Metrics: metrics.New()}), to(c.URL), sampled()
		b.Cleanup(func() { e.Shutdown(b.Context()) })
		b.ReportAllocs()
		for b.Loop() {
			e.Record(r, s)
		}
	})
	b.Run("encoded", func(b *testing.B) {
		var e encoder
		r, s := everything(), telemetry.Default()
		b.ReportAllocs()
		for b.Loop() {
			e.encode(r, s)
		}
		b.ReportMetric(float64(len(e.spans)), "B/request")
	})
}
