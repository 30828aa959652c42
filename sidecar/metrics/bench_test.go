package metrics

import (
	"fmt"
	"testing"

	"remora.dev/remora/sidecar/record"
)

// with models gives a set that has seen requests for so many models, and those requests.
func withModels(n int) (*Set, []*record.Record) {
	s := New()
	var all []*record.Record
	for i := range n {
		r := answeredBy("qwen", fmt.Sprintf("qwen-plus-2026-%02d", i))
		r.Configured = true
		all = append(all, r)
		s.Observe(r, "USD")
	}
	return s, all
}

func BenchmarkARequestIsCounted(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("models=%d", n), func(b *testing.B) {
			s, all := withModels(n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Observe(all[i%n], "USD")
				i++
			}
		})
	}
	b.Run("models=invented", func(b *testing.B) {
		s, _ := withModels(1)
		var all []*record.Record
		for i := range 10_000 {
			r := answeredBy("qwen", fmt.Sprintf("invented-%d", i))
			r.Status, r.ResponseModel = 404, ""
			all = append(all, r)
		}
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			s.Observe(all[i%len(all)], "USD")
			i++
		}
	})
}

func BenchmarkMetricsAreRead(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("models=%d", n), func(b *testing.B) {
			s, _ := withModels(n)
			var text []byte
			b.ReportAllocs()
			for b.Loop() {
				text = s.Append(text[:0])
			}
			b.ReportMetric(float64(len(text)), "bytes/scrape")
		})
	}
}

func TestCountingARequestTakesNoMemory(t *testing.T) {
	s, all := withModels(10)
	invented := answeredBy("qwen", "invented")
	invented.Status, invented.ResponseModel = 404, ""
	s.Observe(invented, "USD")
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		s.Observe(all[i%10], "USD")
		s.Observe(invented, "USD")
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
