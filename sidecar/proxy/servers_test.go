package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

var pods = routing.ServersID{Kind: routing.KindService, Namespace: "default", Name: "api-service", Port: "http"}

// pod is a server of the Service.
type pod struct {
	*httptest.Server
	about routing.Server
	calls atomic.Int64
	conns atomic.Int64 // that were made to it
}

// fleet is a proxy before a Service, whose pods are on addresses of their own.
type fleet struct {
	*rig
	members *snapshot.Members
	pods    []*pod
	handler atomic.Pointer[http.HandlerFunc] // of all pods; nil: they answer {}
}

// plainService is a provider that stands for a Service. Its own address is the only one of the Service where its servers are not known.
const plainService = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: api}
spec:
  host: vllm.models.svc.cluster.local
  tls: {mode: DISABLE}
  TRAFFIC
`

// newFleet has n pods, which are not known where there are none. traffic is the provider's trafficPolicy, and rules those of a route to it; both may be empty.
func newFleet(t *testing.T, n int, b routing.Balance, traffic string, rules ...string) *fleet {
	t.Helper()
	f := &fleet{members: snapshot.NewMembers()}
	config := strings.Replace(plainService, "TRAFFIC", traffic, 1)
	for _, r := range rules {
		config += route("chat", r)
	}
	if b.MaxEjected == 0 {
		b.MaxEjected = routing.DefaultMaxEjected
	}
	f.rig = newRig(t, config, func(o *proxy.Options) { o.Members = f.members })
	f.balance(b)
	for range n {
		f.add()
	}
	if n > 0 {
		f.publish()
	}
	return f
}

// balance has the provider's calls spread over the Service's pods.
func (f *fleet) balance(b routing.Balance) {
	table := f.store.Load().Table
	for target := range table.Targets() {
		if target.Provider.Name == "api" {
			target.Servers, target.Balance = pods, b
		}
	}
	f.store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
}

// add starts a pod.
func (f *fleet) add() *pod {
	f.t.Helper()
	p := &pod{}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.1.%d:0", len(f.pods)+1))
	if err != nil {
		f.t.Fatal(err)
	}
	p.Server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.calls.Add(1)
		if h := f.handler.Load(); h != nil {
			(*h)(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			p.conns.Add(1)
		}
	}}}
	p.Start()
	f.t.Cleanup(p.Close)
	at := l.Addr().(*net.TCPAddr)
	p.about = routing.Server{Address: at.IP.String(), Port: uint16(at.Port)}
	f.pods = append(f.pods, p)
	return p
}

// publish says that the servers are these; without any, all pods.
func (f *fleet) publish(some ...*pod) {
	if some == nil {
		some = f.pods
	}
	all := routing.Servers{}
	for _, p := range some {
		all = append(all, p.about)
	}
	f.members.Publish(pods, all)
}

// renewed waits until the proxy has taken in that there are so many servers.
func (f *fleet) renewed(n int) {
	f.t.Helper()
	for !f.shows() || f.gauge(shown) != n {
		f.call()
	}
	f.counts()
}

// does has every pod answer so.
func (f *fleet) does(h http.HandlerFunc) { f.handler.Store(&h) }

func (f *fleet) counts() []int64 {
	all := make([]int64, len(f.pods))
	for i, p := range f.pods {
		all[i] = p.calls.Swap(0)
	}
	return all
}

func (f *fleet) call(header ...string) reply { return f.do("POST", "http://"+vllm, prompt, header...) }

// idle waits until nothing is under way at any server.
func (f *fleet) idle() {
	f.await(`remora_server_calls{servers="Service default/api-service port http"}`, 0)
}

func TestCallsAreSpreadOverThePodsOfAService(t *testing.T) {
	for name, b := range map[string]routing.Balance{
		"ROUND_ROBIN": {Policy: routing.RoundRobin}, "LEAST_REQUEST": {}, "RANDOM": {Policy: routing.Random}, "LEAST_TOKENS": {Policy: routing.LeastTokens},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 3, b, "")
			for range 300 {
				if got := f.call(); got.status != 200 {
					t.Fatalf("%d %s", got.status, got.body)
				}
			}
			for i, n := range f.counts() {
				if n < 60 || b.Policy == routing.RoundRobin && n != 100 {
					t.Errorf("pod %d got %d of 300", i, n)
				}
			}
			f.idle()
			if got := f.gauge(`remora_servers{servers="Service default/api-service port http"}`); got != 3 {
				t.Errorf("the metrics know %d", got)
			}
		})
	}
}

func TestTheServicesOwnAddressIsCalledWhereItsServersAreNotKnown(t *testing.T) {
	f := newFleet(t, 0, routing.Balance{}, "")
	if f.call(); f.last().Host != vllm {
		t.Errorf("%s was called", f.last().Host)
	}
	f.add()
	f.publish()
	f.renewed(1)
	f.provider.Reset()
	if f.call(); f.counts()[0] != 1 || len(f.provider.Requests()) > 0 {
		t.Error("once they are known, the Service's address is still called")
	}
}

func TestServersThatAreNoneAnyMoreAreCalledWhileThereIsNoOther(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{Policy: routing.RoundRobin}, "")
	f.call()
	f.members.Publish(pods, routing.Servers{})
	for range 10 {
		if got := f.call(); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
}

func TestAServiceWithoutServersIsRefusedByName(t *testing.T) {
	f := newFleet(t, 0, routing.Balance{}, "")
	f.members.Publish(pods, routing.Servers{})
	f.call().wantError(t, 503, routing.ServersMissing, "Service default/api-service port http", "ready")
	if len(f.provider.Requests()) > 0 {
		t.Error("its own address was called")
	}
}

func TestAPodThatRefusesConnectionsIsLeftAtOnceAndNoCallFails(t *testing.T) {
	f := newFleet(t, 5, routing.Balance{Policy: routing.RoundRobin}, "")
	for range 10 {
		f.call()
	}
	f.counts()
	for _, p := range f.pods[:4] { // more than the attempts of a rule
		p.Close()
	}
	for range 50 {
		if got := f.call(); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if n := f.counts(); n[4] != 50 {
		t.Errorf("the pods got %v", n)
	}
	if n := f.log.times("a server cannot be reached"); n < 4 || n > 12 {
		t.Errorf("%d times a server was left alone", n)
	}
	if n := f.gauge(`remora_ejected_servers{servers="Service default/api-service port http"}`); n != 4 {
		t.Errorf("%d servers are left alone", n)
	}
	f.idle()
}

func TestAPodThatTakesConnectionsAgainIsBack(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{Policy: routing.RoundRobin}, "")
	down := f.pods[0]
	at := down.Listener.Addr().String()
	down.Close()
	for range 4 {
		f.call()
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	var back atomic.Int64
	again := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		back.Add(1)
		_, _ = io.WriteString(w, "{}")
	})}
	defer again.Close()
	go func() { _ = again.Serve(l) }()
	for end := time.Now().Add(20 * time.Second); back.Load() < 10; {
		if got := f.call(); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
		if time.Now().After(end) {
			t.Fatal("it is not called again")
		}
	}
	if f.log.times("that was left alone answers again") != 1 {
		t.Errorf("the log: %q", f.log.lines)
	}
}

func TestAllPodsDownIsAConnectFailureAndNothingStaysCounted(t *testing.T) {
	f := newFleet(t, 3, routing.Balance{}, "")
	for _, p := range f.pods {
		p.Close()
	}
	for range 5 {
		f.call().wantError(t, 502, routing.ConnectFailure, "127.0.1.")
	}
	f.idle()
}

func TestARetryGoesToAnotherServer(t *testing.T) {
	f := newFleet(t, 3, routing.Balance{Policy: routing.RoundRobin}, "", "  - retries: {attempts: 2, retryOn: [gateway-error]}\n    backendRefs: [{providerHost: "+vllm+"}]")
	var mu sync.Mutex
	seen := map[string]map[string]int{} // by the id of a call, by pod
	f.does(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get("X-Id")
		if seen[id] == nil {
			seen[id] = map[string]int{}
		}
		seen[id][r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()]++
		if len(seen[id]) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, "{}")
	})
	if got := f.do("POST", "http://chat", prompt, "X-Id", "1"); got.status != 200 || len(seen["1"]) != 3 {
		t.Errorf("%d after %v", got.status, seen)
	}
	f.idle()
}

func TestAPodWithGatewayErrorsIsLeftAloneAndOtherErrorsDoNotCount(t *testing.T) {
	traffic := "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0}}"
	f := newFleet(t, 2, routing.Balance{Policy: routing.RoundRobin}, traffic)
	for target := range f.store.Load().Table.Targets() {
		if target.Provider.Name == "api" {
			target.Policy.EjectAfter, target.Policy.EjectAfterGatewayErrors, target.Policy.EjectionTime = 0, 3, time.Hour
		}
	}
	f.store.Publish(f.store.Load())
	var status atomic.Int64
	bad := f.pods[0].about.Address
	f.does(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(), bad+":") {
			w.WriteHeader(int(status.Load()))
		}
	})
	status.Store(500)
	for range 20 {
		f.call()
	}
	if n := f.counts(); n[0] != 10 {
		t.Errorf("after errors that do not count, the pods got %v", n)
	}
	status.Store(503)
	for range 20 {
		f.call()
	}
	if n := f.counts(); n[0] != 3 {
		t.Errorf("after errors that count, the pods got %v", n)
	}
}

func TestCallsThatAreAbortedAreUnderWayNoMore(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{}, "")
	begun := make(chan struct{}, 100)
	f.does(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Stream") != "" {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {}\n\n")
			w.(http.Flusher).Flush()
		}
		begun <- struct{}{}
		<-r.Context().Done()
	})
	for _, header := range []string{"", "1"} {
		for range 10 {
			ctx, leave := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if resp, err := f.open(ctx, "POST", "http://"+vllm, streamed, "X-Stream", header); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			}()
			<-begun
			leave()
			<-ended
		}
	}
	f.idle()
}

func TestPodsReplacedInTheMiddleOfAnswersFinishThem(t *testing.T) {
	f := newFleet(t, 3, routing.Balance{Policy: routing.RoundRobin}, "")
	goOn := make(chan struct{})
	f.does(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Slow") != "" {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {\"a\":1}\n\n")
			w.(http.Flusher).Flush()
			<-goOn
			_, _ = io.WriteString(w, "data: [DONE]\n\n")
			return
		}
		_, _ = io.WriteString(w, "{}")
	})
	var open []*http.Response
	for range 6 {
		resp, err := f.open(t.Context(), "POST", "http://"+vllm, streamed, "X-Slow", "1")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp)
	}
	f.add()
	f.add()
	f.publish(f.pods[3:]...)
	f.renewed(2)
	for range 10 {
		f.call()
	}
	if n := f.counts(); n[0]+n[1]+n[2] > 0 || n[3] != 5 || n[4] != 5 {
		t.Errorf("the pods got %v", n)
	}
	if n := f.gauge(`remora_server_calls{servers="Service default/api-service port http"}`); n != 6 {
		t.Errorf("%d calls are under way", n)
	}
	close(goOn)
	for _, resp := range open {
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.HasSuffix(string(b), "data: [DONE]\n\n") {
			t.Errorf("%q %v", b, err)
		}
	}
	f.idle()
	f.await("remora_upstream_connections", 2) // those to the old ones are closed
}

func TestAPodThatAcceptsAndNeverAnswersGetsFewCalls(t *testing.T) {
	f := newFleet(t, 3, routing.Balance{}, "")
	dead := f.pods[1].about.Address
	f.does(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasPrefix(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(), dead+":") {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, "{}")
	})
	ctx, leave := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for range 50 {
				if resp, err := f.open(ctx, "POST", "http://"+vllm, prompt); err == nil {
					_ = resp.Body.Close()
				}
			}
		})
	}
	stop := time.AfterFunc(5*time.Second, leave)
	defer stop.Stop()
	calls.Wait()
	leave()
	if n := f.counts(); n[1] > 4 {
		t.Errorf("the pods got %v", n)
	}
	f.idle()
}

func TestAnIdleConnectionThatAPodClosesJustThenCostsNoCall(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			f := newFleet(t, 2, routing.Balance{Policy: routing.RoundRobin}, "")
			var calls atomic.Int64
			f.does(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if n := calls.Add(1); n == 3 || n == 5 { // the second on each connection, which was kept
					if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
						_ = conn.Close()
						return
					}
				}
				_, _ = io.WriteString(w, "{}")
			})
			for range 6 {
				if got := f.do(method, "http://"+vllm+"/v1/chat/completions", map[string]string{"GET": "", "POST": prompt}[method]); got.status != 200 {
					t.Errorf("%d %s", got.status, got.body)
				}
			}
			f.idle()
		})
	}
}
