package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

const (
	waitingRequests = "remora_requests_waiting"
	openConnections = "remora_upstream_connections"
	idleConnections = "remora_upstream_idle_connections"
)

// limited is rawConfig with a policy of connections.
func limited(policy, rule string) string {
	return strings.Replace(rawConfig(rule), "  port: 8080\n", "  port: 8080\n  trafficPolicy: {connectionPool: {"+policy+"}}\n", 1)
}

// gate is a provider that answers a request only when it is let through.
type gate struct {
	*handmade
	pass chan struct{}
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{pass: make(chan struct{})}
	// The gate opens before the provider is closed, which waits for its answers.
	g.handmade = serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		<-g.pass
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		return err == nil
	})
	t.Cleanup(g.open)
	return g
}

func (g *gate) open() {
	select {
	case <-g.pass:
	default:
		close(g.pass)
	}
}

func (g *gate) bodies() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.text)
}

// numbered is a request's body that can be told from others.
func numbered(i int) string {
	return fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"%d"}]}`, i)
}

func TestRequestsWaitForAConnectionAndGetItInTheOrderInWhichTheyCame(t *testing.T) {
	r := newRig(t, limited("tcp: {maxConnections: 1, connectTimeout: 1m}", ""))
	g := newGate(t)
	const n = 20
	var asking sync.WaitGroup
	var want []string
	for i := range n {
		want = append(want, numbered(i))
		asking.Go(func() {
			if got, err := r.try("POST", "http://raw", numbered(i)); err != nil || got.status != 200 {
				t.Errorf("request %d: %d %s %v", i, got.status, got.body, err)
			}
		})
		r.await(openConnections, 1)
		r.await(waitingRequests, i) // the first waits for nothing
	}
	if c := r.gauge(openConnections); c != 1 {
		t.Errorf("%d connections are open", c)
	}
	g.open()
	asking.Wait()
	if got := g.bodies(); !slices.Equal(got, want) {
		t.Errorf("the provider got %v", got)
	}
	if o, i, w := r.gauge(openConnections), r.gauge(idleConnections), r.gauge(waitingRequests); o != 1 || i != 1 || w != 0 {
		t.Errorf("%d connections, %d of them idle, %d requests waiting", o, i, w)
	}
}

func TestARequestThatTheQueueHasNoRoomForIsRefusedAtOnce(t *testing.T) {
	r := newRig(t, limited("tcp: {maxConnections: 1, connectTimeout: 1m}, http: {http1MaxPendingRequests: 1}", "\n    retries: {attempts: 0}"))
	g := newGate(t)
	var asking sync.WaitGroup
	for i := range 2 {
		asking.Go(func() {
			if got, err := r.try("POST", "http://raw", prompt); err != nil || got.status != 200 {
				t.Errorf("%d %s %v", got.status, got.body, err)
			}
		})
		r.await(waitingRequests, i)
		r.await(openConnections, 1)
	}
	got := r.do("POST", "http://raw", prompt)
	got.wantError(t, 503, routing.Overloaded, "all 1 connections to 127.0.0.5:8080 are in use", "1 requests wait", "connectionPool")
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("headers %v", got.header)
	}
	g.open()
	asking.Wait()
}

func TestAWaitForAConnectionEnds(t *testing.T) {
	const one = "tcp: {maxConnections: 1, connectTimeout: "
	for name, c := range map[string]struct {
		policy, rule string
		status       int
		code         routing.Code
		says         string
	}{
		"when making one would have taken too long": {one + "50ms}", "\n    retries: {attempts: 0}", 503, routing.Overloaded, "none of the 1 connections to 127.0.0.5:8080 became free within 50ms"},
		"with the time of the rule":                 {one + "1m}", "\n    timeouts: {request: 300ms}", 504, routing.DeadlineExceeded, "timeouts.request"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, limited(c.policy, c.rule)+route("patient", "\n  - backendRefs: [{providerHost: 127.0.0.5}]"))
			g := newGate(t)
			var asking sync.WaitGroup
			asking.Go(func() {
				if got, err := r.try("POST", "http://patient", prompt); err != nil || got.status != 200 {
					t.Errorf("the first: %d %s %v", got.status, got.body, err)
				}
			})
			r.await(openConnections, 1)
			r.do("POST", "http://raw", prompt).wantError(t, c.status, c.code, c.says)
			r.await(waitingRequests, 0)
			g.open()
			asking.Wait()
			if n := g.count(); n != 1 {
				t.Errorf("the provider got %d requests", n)
			}
		})
	}
}

func TestOfTwoThousandThatWaitHalfMayLeave(t *testing.T) {
	r := newRig(t, limited("tcp: {maxConnections: 4, connectTimeout: 5m}, http: {http1MaxPendingRequests: 4000}", ""))
	r.client.Transport.(*http.Transport).MaxIdleConnsPerHost = -1
	g := newGate(t)
	const n = 2000
	leave, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	var served, left atomic.Int64
	for i := range n {
		ctx := t.Context()
		if i%2 == 1 && i > 8 {
			ctx = leave
		}
		asking.Go(func() {
			resp, err := r.open(ctx, "POST", "http://raw", numbered(i))
			switch {
			case err != nil && ctx.Err() != nil:
				left.Add(1)
			case err != nil:
				t.Errorf("request %d: %v", i, err)
			default:
				if _, err := io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode == 200 {
					served.Add(1)
				}
				_ = resp.Body.Close()
			}
		})
		if i%100 == 99 {
			r.await(waitingRequests, i+1-4)
		}
	}
	cancel()
	gone := 0
	for i := range n {
		if i%2 == 1 && i > 8 {
			gone++
		}
	}
	// One of those that leave may be one that holds a connection.
	for end := time.Now().Add(time.Minute); r.gauge(waitingRequests) > n-gone; {
		if time.Now().After(end) {
			t.Fatalf("%d still wait", r.gauge(waitingRequests))
		}
	}
	g.open()
	asking.Wait()
	if int(left.Load()) != gone || int(served.Load()) != n-gone || g.count() < n-gone || g.count() > n-gone+4 {
		t.Errorf("%d left and %d were served, with %d requests at the provider", left.Load(), served.Load(), g.count())
	}
	if o := r.gauge(openConnections); o > 4 || r.gauge(waitingRequests) != 0 {
		t.Errorf("%d connections, %d waiting", o, r.gauge(waitingRequests))
	}
}

func TestARetiredEndpointServesThoseWhoWaitForItAndIsLeftThen(t *testing.T) {
	config := limited("tcp: {maxConnections: 2, connectTimeout: 1m}", "")
	r := newRig(t, config)
	g := newGate(t)
	const n = 10
	var asking sync.WaitGroup
	for i := range n {
		asking.Go(func() {
			if got, err := r.try("POST", "http://raw", numbered(i)); err != nil || got.status != 200 {
				t.Errorf("request %d: %d %s %v", i, got.status, got.body, err)
			}
		})
	}
	r.await(waitingRequests, n-2)
	r.apply(strings.Replace(config, "port: 8080", "port: 8081", 1))
	g.open()
	asking.Wait()
	r.await(openConnections, 0)
	if g.count() != n {
		t.Errorf("the provider got %d requests", g.count())
	}
}

func TestALowerLimitHoldsForConnectionsThatAreThere(t *testing.T) {
	r := newRig(t, limited("tcp: {maxConnections: 8}", ""))
	g := newGate(t)
	ask := func(n int) *sync.WaitGroup {
		var asking sync.WaitGroup
		for i := range n {
			asking.Go(func() {
				if got, err := r.try("POST", "http://raw", numbered(i)); err != nil || got.status != 200 {
					t.Errorf("%d %s %v", got.status, got.body, err)
				}
			})
		}
		return &asking
	}
	first := ask(8)
	r.await(openConnections, 8)
	r.apply(limited("tcp: {maxConnections: 2, connectTimeout: 1m}", ""))
	second := ask(4)
	r.await(waitingRequests, 4)
	g.open()
	first.Wait()
	second.Wait()
	if o := r.gauge(openConnections); o < 1 || o > 2 {
		t.Errorf("%d connections are open, where there may be 2", o)
	}
}

func TestAnotherPolicyKeepsTheConnectionsAndItsAgeHoldsForThem(t *testing.T) {
	r := newRig(t, limited("tcp: {maxConnections: 8}", ""))
	var conns sync.Map
	serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		conns.Store(c, true)
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		return err == nil
	})
	count := func() (n int) {
		conns.Range(func(any, any) bool { n++; return true })
		return n
	}
	ask := func() {
		t.Helper()
		if got := r.do("POST", "http://raw", prompt); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	ask()
	r.apply(limited("tcp: {maxConnections: 7, maxConnectionDuration: 1h}", ""))
	ask()
	if n := count(); n != 1 {
		t.Errorf("with another policy, there are %d connections", n)
	}
	r.apply(limited("tcp: {maxConnections: 7, maxConnectionDuration: 1ms}", ""))
	<-time.After(2 * time.Millisecond)
	ask()
	if n := count(); n != 2 {
		t.Errorf("past the age, there are %d connections", n)
	}
}
