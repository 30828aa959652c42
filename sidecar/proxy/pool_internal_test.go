package proxy

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/routing"
)

// poolTo is a pool of an endpoint that takes connections and says nothing, with a count of those that are open there.
func poolTo(tb testing.TB) (p *pool, open *atomic.Int64) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.9:0")
	if err != nil {
		tb.Fatal(err)
	}
	open = &atomic.Int64{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			stop := context.AfterFunc(tb.Context(), func() { _ = c.Close() }) // where the test left it open
			running.Go(func() {
				defer stop()
				_, _ = io.Copy(io.Discard, c)
				open.Add(-1)
				_ = c.Close()
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	return newPool(routing.Endpoint{Host: "127.0.0.9", Port: port}, &upstreams{log: logr.Discard(), trusted: &authorities{}}), open
}

// Whatever happens to those who wait, nobody waits while there is something to have, and nothing is lost.
func TestNoConnectionAndNobodyWhoWaitsIsForgotten(t *testing.T) {
	p, atProvider := poolTo(t)
	const workers, rounds, limit = 40, 100, 3
	var inUse, served, left atomic.Int64
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for range rounds {
				limits := routing.TrafficPolicy{MaxConnections: limit, MaxPending: workers, ConnectTimeout: time.Minute}
				var deadline time.Time
				client := &clientConn{}
				switch rand.IntN(4) {
				case 0:
					go client.depart()
				case 1:
					deadline = time.Now().Add(time.Duration(rand.IntN(500)) * time.Microsecond)
				}
				c, f := p.get(client, rand.IntN(5) == 0, deadline, &limits)
				if f != nil {
					if f.code == routing.Overloaded {
						t.Errorf("%v", f)
					}
					left.Add(1)
					continue
				}
				if n := inUse.Add(1); n > limit {
					t.Errorf("%d connections are in use", n)
				}
				if rand.IntN(3) == 0 {
					<-time.After(time.Duration(rand.IntN(200)) * time.Microsecond)
				}
				served.Add(1)
				inUse.Add(-1)
				switch rand.IntN(6) {
				case 0:
					c.discard()
				case 1:
					c.abort()
					c.release()
				case 2:
					c.spent = true
					c.release()
				default:
					c.release()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { working.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		p.mu.Lock()
		t.Fatalf("%d wait with %d connections open, %d of them idle", p.queue.Len(), p.open, len(p.idle))
	}
	p.mu.Lock()
	if p.open != len(p.idle) || p.open > limit || p.queue.Len() != 0 || p.most != 0 || int(p.all.open.Load()) != p.open || p.all.waiting.Load() != 0 {
		t.Errorf("%d connections, %d of them idle, %d waiting; counted %d and %d", p.open, len(p.idle), p.queue.Len(), p.all.open.Load(), p.all.waiting.Load())
	}
	p.mu.Unlock()
	if served.Load() == 0 || left.Load() == 0 {
		t.Errorf("%d were served, %d left: nothing was tried", served.Load(), left.Load())
	}
	p.retire()
	if p.all.open.Load() != 0 {
		t.Errorf("%d connections survive", p.all.open.Load())
	}
	for end := time.Now().Add(30 * time.Second); atProvider.Load() != 0 && time.Now().Before(end); {
		<-time.After(time.Millisecond)
	}
	if n := atProvider.Load(); n != 0 {
		t.Errorf("the provider still has %d connections", n)
	}
}

func TestWhoMayHaveFewerConnectionsDoesNotHoldUpTheOthers(t *testing.T) {
	p, _ := poolTo(t)
	limits := func(n int) *routing.TrafficPolicy {
		return &routing.TrafficPolicy{MaxConnections: n, MaxPending: 10, ConnectTimeout: time.Minute}
	}
	got := make(chan int, 2)
	first, f := p.get(&clientConn{}, false, time.Time{}, limits(2))
	if f != nil {
		t.Fatal(f)
	}
	second, f := p.get(&clientConn{}, false, time.Time{}, limits(2))
	if f != nil {
		t.Fatal(f)
	}
	for i, n := range []int{1, 2} {
		go func() {
			if _, f := p.get(&clientConn{}, false, time.Time{}, limits(n)); f != nil {
				t.Error(f)
			}
			got <- n
		}()
		for p.all.waiting.Load() != int64(i+1) {
			<-time.After(time.Millisecond)
		}
	}
	first.release()
	if n := <-got; n != 2 {
		t.Errorf("with two connections open, who may have %d got one", n)
	}
	second.spent = true
	second.release() // one is left
	select {
	case n := <-got:
		t.Errorf("with one connection in use, who may have %d got another", n)
	default:
	}
	p.mu.Lock()
	open, queued := p.open, p.queue.Len()
	p.mu.Unlock()
	if open != 1 || queued != 1 {
		t.Errorf("%d connections, %d in the queue", open, queued)
	}
	p.vacate() // as the end of the other does
	if n := <-got; n != 1 {
		t.Errorf("%d", n)
	}
}

// A connection that has died while it was handed over leaves its place to the one who got it.
func TestADeadConnectionIsReplacedInItsPlace(t *testing.T) {
	p, _ := poolTo(t)
	limits := &routing.TrafficPolicy{MaxConnections: 1, MaxPending: 10, ConnectTimeout: time.Minute}
	c, f := p.get(&clientConn{}, false, time.Time{}, limits)
	if f != nil {
		t.Fatal(f)
	}
	got := make(chan *upConn)
	go func() {
		c, f := p.get(&clientConn{}, false, time.Time{}, limits)
		if f != nil {
			t.Error(f)
		}
		got <- c
	}()
	for p.all.waiting.Load() != 1 {
		<-time.After(time.Millisecond)
	}
	if err := c.raw.CloseRead(); err != nil { // as the provider's end does, alive sees this
		t.Fatal(err)
	}
	c.release()
	if next := <-got; next == nil || next == c || next.reused || p.open != 1 {
		t.Errorf("%v after %v, with %d open", next, c, p.open)
	}
}

func TestConnectionsThatBeganTogetherDoNotEndTogether(t *testing.T) {
	now := time.Now()
	old := 0
	for young := range 256 {
		c := &upConn{born: now.Add(-9 * time.Minute), young: uint8(young), maxAge: 10 * time.Minute}
		if c.old(now) {
			old++
		}
		c.maxAge = 0
		if c.old(now) {
			t.Fatal("without a limit, it is too old")
		}
	}
	if old < 32 || old > 128 {
		t.Errorf("%d of 256 are too old after nine of ten minutes", old)
	}
}
