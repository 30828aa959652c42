package admin

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// busy gives metrics of a hundred models: over two megabytes of them.
func busy(into *metrics.Set) *metrics.Set {
	for i := range 100 {
		into.Observe(&record.Record{
			Start: time.Now(), Provider: routing.Ref{Namespace: "demo", Name: "qwen"}, Operation: "chat", RequestModel: fmt.Sprint("model-", i),
			Configured: true, Status: 200, Total: time.Second, FirstToken: time.Second / 2, Stream: true, Chunks: 9,
			Usage: record.Usage{Input: 9, Output: 9, EstimatedInput: 1, EstimatedOutput: 1, Reported: true},
		}, "USD")
	}
	return into
}

func TestTheMetricsOnTheirWayStayFewHoweverManyReadThemSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scrapes{metrics: busy(metrics.New())}
		var slow []*reading
		for range 10_000 {
			slow = append(slow, s.open())
		}
		if limit := maxTexts + s.last; s.size > limit {
			t.Errorf("%d bytes are held, and %d may be", s.size, limit)
		}
		<-time.After(requestTime + 1) // in which readers come and go, but the text that they share stays
		fresh := s.open()
		if fresh.page == slow[len(slow)-1].page {
			t.Error("an old text is given out for ever")
		}
		for _, r := range append(slow, fresh) {
			for range 2 { // the second time, there is nothing to give back
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		if s.size != 0 || s.newest != nil {
			t.Errorf("%d bytes are held for nobody", s.size)
		}
		s.metrics.Failures("Later").Inc()
		alone := s.open()
		if text, _ := io.ReadAll(alone); !strings.Contains(string(text), `remora_failures_total{code="Later"} 1`) {
			t.Error("who reads alone does not get what is true now")
		}
	})
}

func TestWhoReadsMetricsSlowlyKeepsNobodyElseWaiting(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, done := New(snapshot.NewStore(), busy(metrics.New())), make(chan error, 1)
	go func() { done <- s.ServeHealth(ln) }()
	var slow []net.Conn
	for range maxConns - 1 { // all of them want metrics and read none
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	f := func(method, path string, atLeast int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+ln.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if n, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK || int(n) < atLeast || res.ContentLength < int64(atLeast) {
			t.Errorf("%s %s: %s, %d bytes of %d, %v", method, path, res.Status, n, res.ContentLength, err)
		}
	}
	for range 3 {
		f(http.MethodGet, "/metrics", 1<<20)
		f(http.MethodGet, "/livez", 2)
		f(http.MethodHead, "/metrics", 0)
	}
	s.metrics.mu.Lock()
	if limit := maxTexts + s.metrics.last; s.metrics.size > limit {
		t.Errorf("%d bytes are held, and %d may be", s.metrics.size, limit)
	}
	s.metrics.mu.Unlock()
	for _, conn := range slow {
		_ = conn.Close()
	}
	if err := s.Shutdown(t.Context()); err != nil { // which waits for all of them
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s.metrics.size != 0 {
		t.Errorf("%d bytes are held for nobody", s.metrics.size)
	}
}
