package proxy

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// newApp is a connection of an app that has nothing to say.
func newApp(t *testing.T) *clientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = app.Close(), c.Close() })
	return &clientConn{TCPConn: c.(*net.TCPConn)}
}

// memoryOf100 is a memory of 100 bytes.
func memoryOf100() *memory {
	m := newMemory(0)
	m.total = 100
	return m
}

// asked takes in the background.
func asked(m *memory, s *share, n int64) chan *failure {
	done := make(chan *failure, 1)
	go func() { done <- m.take(s, n, &clientConn{}) }()
	return done
}

func wantCode(t *testing.T, f *failure, code routing.Code) {
	t.Helper()
	if f == nil && code != "" || f != nil && f.code != code {
		t.Errorf("got %v, want %q", f, code)
	}
	if code == routing.Overloaded && f != nil && f.retryAfter == 0 {
		t.Errorf("%v does not say when to come again", f)
	}
}

func TestMemoryIsGivenInTheOrderOfAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf100()
		var first, large, small share
		wantCode(t, m.take(&first, 60, nil), "")
		a := asked(m, &large, 80)
		synctest.Wait()
		b := asked(m, &small, 10) // there would be room, but it is not its turn
		synctest.Wait()
		select {
		case <-b:
			t.Error("it has gone before its turn")
		default:
		}
		m.give(&first, 60)
		wantCode(t, <-a, "")
		wantCode(t, <-b, "")
		if m.inUse() != 90 {
			t.Errorf("%v are in use", m.inUse())
		}
	})
}

func TestWhatCanNeverFitIsRefusedAtOnce(t *testing.T) {
	m := memoryOf100()
	var s share
	wantCode(t, m.take(&s, 101, nil), routing.RequestTooLarge)
	wantCode(t, m.take(&s, 60, nil), "")
	wantCode(t, m.take(&s, 41, nil), routing.RequestTooLarge)
}

func TestAWaitForMemoryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf100()
		var kept, late share
		wantCode(t, m.take(&kept, 100, nil), "")
		begun := time.Now()
		wantCode(t, m.take(&late, 1, &clientConn{}), routing.Overloaded)
		if waited := time.Since(begun); waited != memoryWait {
			t.Errorf("after %s", waited)
		}
		leaving := &clientConn{}
		done := make(chan *failure)
		go func() { done <- m.take(&late, 1, leaving) }()
		synctest.Wait()
		leaving.depart()
		wantCode(t, <-done, routing.ClientGone)
		for range memoryQueue {
			asked(m, new(share), 1)
		}
		synctest.Wait()
		wantCode(t, m.take(&late, 1, &clientConn{}), routing.Overloaded)
		m.give(&kept, 100)
		synctest.Wait()
		if m.inUse() != 100 {
			t.Errorf("%v are in use", m.inUse())
		}
		<-time.After(memoryWait) // of synctest's time: until the others give up
	})
}

func TestBodiesThatGrowDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf100()
		var a, b, c, next share
		for _, s := range []*share{&a, &b, &c} {
			wantCode(t, m.take(s, 30, nil), "")
		}
		moreA := asked(m, &a, 40)
		synctest.Wait()
		moreB := asked(m, &b, 40)
		synctest.Wait()
		arriving := asked(m, &next, 5)
		synctest.Wait()
		wantCode(t, m.take(&c, 40, &clientConn{}), routing.Overloaded) // nobody could go on any more: it is the last
		m.give(&c, c.size)
		wantCode(t, <-moreA, "")
		m.give(&a, a.size)
		wantCode(t, <-moreB, "")
		m.give(&b, b.size)
		wantCode(t, <-arriving, "")
		if m.inUse() != 5 || m.parked != 0 {
			t.Errorf("%v are in use, %d parked", m.inUse(), m.parked)
		}
	})
}

func TestAReleaseThatLeavesOnlyWaitersEndsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf100()
		var a, b, c share
		wantCode(t, m.take(&a, 45, nil), "")
		wantCode(t, m.take(&b, 45, nil), "")
		wantCode(t, m.take(&c, 10, nil), "")
		moreA := asked(m, &a, 50)
		synctest.Wait()
		moreB := asked(m, &b, 50)
		synctest.Wait()
		m.give(&c, 10) // not enough for either
		wantCode(t, <-moreB, routing.Overloaded)
		m.give(&b, b.size)
		wantCode(t, <-moreA, "")
	})
}

func TestASlowBodyMakesWayForOthers(t *testing.T) {
	m := memoryOf100()
	m.slow = 20 * time.Millisecond
	var slow, fast, next share
	wantCode(t, m.take(&slow, 50, nil), "")
	wantCode(t, m.take(&fast, 50, nil), "")
	slowApp, fastApp := newApp(t), newApp(t)
	m.receive(&slow, slowApp)
	m.receive(&fast, fastApp)
	fast.got.Store(math.MaxInt32)
	done := asked(m, &next, 50)
	if _, err := slowApp.TCPConn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || !slow.evicted.Load() {
		t.Errorf("the read ends in %v, evicted %v", err, slow.evicted.Load())
	}
	m.arrived(&slow)
	m.give(&slow, slow.size)
	wantCode(t, <-done, "")
	if fast.evicted.Load() {
		t.Error("the fast one has gone too")
	}
	m.arrived(&fast)
	if len(m.receiving) != 0 {
		t.Error("something is left")
	}
}

// TestNobodyWaitsForEver has many bodies of unknown length take, grow, wait and end in random order.
func TestNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf100()
		var running sync.WaitGroup
		var whole, refused atomic.Int64
		for range 200 {
			running.Go(func() {
				var s share
				defer func() { m.give(&s, s.size) }()
				for step := int64(1); s.size+step < 90; step *= 2 {
					if f := m.take(&s, step, &clientConn{}); f != nil {
						wantCode(t, f, routing.Overloaded)
						refused.Add(1)
						return
					}
					<-time.After(rand.N(time.Second)) // of synctest's time
				}
				whole.Add(1)
			})
		}
		running.Wait()
		if m.used != 0 || m.parked != 0 || len(m.growing)+len(m.arriving) != 0 {
			t.Errorf("%d are used, %d parked, %d wait", m.used, m.parked, len(m.growing)+len(m.arriving))
		}
		if whole.Load() == 0 {
			t.Errorf("none came to its end, %d were refused", refused.Load())
		}
	})
}

// known is a configuration that is there, and names nobody.
func known(t *testing.T) *snapshot.Snapshot {
	t.Helper()
	table, _ := routing.Compile(routing.Objects{Secrets: []routing.Secret{}}, &routing.Workload{Namespace: "default"})
	return &snapshot.Snapshot{Table: table, Ready: true}
}

func TestAStalledBodyIsGivenUp(t *testing.T) {
	remote, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	cut := make(chan error, 1)
	go func() {
		c, err := remote.Accept()
		if err != nil {
			cut <- err
			return
		}
		_, err = io.Copy(io.Discard, c)
		cut <- err
	}()
	addr := serving(t, func(p *Proxy) {
		p.patience = 50 * time.Millisecond
		p.store.Publish(known(t))
	})
	for _, framing := range []string{"Content-Length: 100000\r\n\r\n" + string(make([]byte, 10000)), "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"} {
		got := exchange(t, addr, "POST http://"+remote.Addr().String()+"/ HTTP/1.1\r\nHost: x\r\n"+framing)
		if want := "HTTP/1.1 408 "; len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("it is answered %q", got)
		}
		select {
		case <-cut:
		case <-time.After(20 * time.Second):
			t.Error("the host still waits")
		}
		go func() {
			c, err := remote.Accept()
			if err == nil {
				_, err = io.Copy(io.Discard, c)
			}
			cut <- err
		}()
	}
}

func TestTheMemoryLimitIsFoundInTheNearestPlace(t *testing.T) {
	const unlimited = int64(math.MaxInt64)
	for _, c := range []struct {
		own   string
		files map[string]string
		want  int64
	}{
		{"0::/\n", map[string]string{"/sys/fs/cgroup/memory.max": "67108864\n"}, 64 << 20},
		{"0::/\n", map[string]string{"/sys/fs/cgroup/memory.max": "max\n"}, unlimited},
		{"0::/pods/one/box\n", map[string]string{"/sys/fs/cgroup/pods/one/memory.max": "1000\n", "/sys/fs/cgroup/pods/one/box/memory.max": "max\n", "/sys/fs/cgroup/pods/memory.max": "2000\n"}, 1000},
		{"0::/../../elsewhere\n", map[string]string{"/sys/fs/cgroup/memory.max": "1000\n"}, 1000},
		{"11:pids:/a\n4:cpu,memory:/a\n", map[string]string{"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "5000\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 5000},
		{"4:memory:/docker/abc\n", map[string]string{"/sys/fs/cgroup/memory/memory.limit_in_bytes": "7000\n"}, 7000},
		{"", nil, unlimited},
		{"nonsense\n0::\n", nil, unlimited},
	} {
		got := cgroupLimit([]byte(c.own), func(name string) ([]byte, error) {
			if content, ok := c.files[name]; ok {
				return []byte(content), nil
			}
			return nil, os.ErrNotExist
		})
		if got != c.want {
			t.Errorf("%q: %d, want %d", c.own, got, c.want)
		}
	}
	if limit := memoryLimit(); limit < leastMemory || limit == unlimited {
		t.Errorf("this machine's is %d", limit)
	}
}
