package proxy_test

import (
	"bufio"
	"net"
	"testing"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/telemetry"
)

// BenchmarkRecord is BenchmarkRequest without anybody who wants to know, and with one who looks at nothing: what making the records costs.
// The third has a trace of each.
func BenchmarkRecord(b *testing.B) {
	done := func(*record.Record, *telemetry.Settings) {}
	for name, set := range map[string]func(*proxy.Options){
		"untold": func(*proxy.Options) {},
		"told":   func(o *proxy.Options) { o.Done = done },
		"traced": func(o *proxy.Options) {
			o.Done = done
			now := *o.Store.Load()
			now.Telemetry = telemetry.Default()
			now.Telemetry.Traces = telemetry.Traces{Endpoint: "http://collector", Sample: 1}
			o.Store.Publish(&now)
		},
	} {
		b.Run(name, func(b *testing.B) {
			address, _ := benched(b, set)
			c, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			in := bufio.NewReader(c)
			b.ReportAllocs()
			begun := busy()
			for b.Loop() {
				ask(b, c, in)
			}
			b.ReportMetric((busy()-begun)*1e6/float64(b.N), "cpu-µs/op")
		})
	}
}

func TestARecordCostsNoMemory(t *testing.T) {
	allocations := func(t *testing.T, set func(*proxy.Options)) float64 {
		t.Helper()
		address, _ := benched(t, set)
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for range 100 {
			ask(t, c, in)
		}
		return testing.AllocsPerRun(500, func() { ask(t, c, in) })
	}
	var untold, told float64
	t.Run("untold", func(t *testing.T) { untold = allocations(t, func(*proxy.Options) {}) })
	t.Run("told", func(t *testing.T) {
		told = allocations(t, func(o *proxy.Options) { o.Done = func(*record.Record, *telemetry.Settings) {} })
	})
	// With -race, pools forget a quarter of what they are given. A record of its own for each request would be five and more.
	if told > untold+2 {
		t.Errorf("%.1f allocations a request with a record, %.1f without", told, untold)
	}
}
