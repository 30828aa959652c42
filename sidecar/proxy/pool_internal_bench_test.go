package proxy

import (
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// BenchmarkKeptConnection is what it costs a request to get a connection that is kept, and to give it back.
func BenchmarkKeptConnection(b *testing.B) {
	p, _ := poolTo(b)
	limits := &routing.TrafficPolicy{MaxConnections: 1024, MaxPending: 1024, ConnectTimeout: time.Minute, MaxConnectionAge: time.Hour}
	client := &clientConn{}
	b.ReportAllocs()
	for b.Loop() {
		c, f := p.get(client, false, time.Time{}, limits)
		if f != nil {
			b.Fatal(f)
		}
		c.release()
	}
}
