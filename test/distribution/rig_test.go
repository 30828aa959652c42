// Package distribution judges how each policy spreads calls over servers, through the real proxy. Nothing in it depends on time: what
// is drawn is judged by Pearson's test, at a bound that a right distribution misses once in a billion runs, and the rest is exact.
package distribution

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/netns"
)

func TestMain(m *testing.M) {
	netns.Enter(nil)
	os.Exit(m.Run())
}

const (
	public = "127.0.0.9" // the gateway's
	host   = "api.example.com"
	models = "models.example.com"
	port   = 8000 // of the servers
)

// Everything but the DestinationRule, which says how.
const config = `
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [` + host + `]
  gateways: [edge]
  http:
  - route: [{destination: {host: api}}]
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: models}
spec:
  host: ` + models + `
  gateways: [edge]
  rules:
  - backendRefs: [{backendRef: {kind: Service, name: api, port: 80}}]
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  ports: [{name: http, port: 80}]
---
`

// rule is the DestinationRule of the Service.
func rule(loadBalancer string) string { return annotated("{}", loadBalancer) }

func annotated(annotations, loadBalancer string) string {
	return config + "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata: {name: api, annotations: " + annotations +
		"}\nspec:\n  host: api\n  trafficPolicy:\n    loadBalancer: " + loadBalancer + "\n"
}

// rig is a gateway in front of some servers.
type rig struct {
	t       *testing.T
	members *snapshot.Members
	table   *routing.Table
	servers []*server
	client  *http.Client
}

// server answers with its number, and holds those that are to be held.
type server struct {
	number int
	mu     sync.Mutex
	got    int
	held   chan struct{} // told of each call that is held
	free   chan struct{} // closed to let them go
}

// holdHead marks calls that a server does not answer yet.
const holdHead = "X-Hold"

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	s.got++
	s.mu.Unlock()
	if r.Header.Get(holdHead) != "" {
		s.held <- struct{}{}
		select {
		case <-s.free:
		case <-r.Context().Done():
		}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, s.number)
}

func newRig(t *testing.T, n int, config string) *rig {
	t.Helper()
	r := &rig{t: t, members: snapshot.NewMembers()}
	free := make(chan struct{})
	for i := range n {
		s := &server{number: i, held: make(chan struct{}, 1024), free: free}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.1.%d:%d", 1+i, port))
		if err != nil {
			t.Fatal(err)
		}
		serving := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
		go func() { _ = serving.Serve(l) }() // it ends with the test
		t.Cleanup(func() { serving.Close() })
		r.servers = append(r.servers, s)
	}
	store := snapshot.NewStore()
	p, err := proxy.New(proxy.Options{Store: store, Log: logr.Discard(), Members: r.members, Public: netip.MustParseAddr(public)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(free)
		r.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	r.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(public, "80"))
		},
		MaxIdleConnsPerHost: 256, DisableCompression: true,
	}}
	r.table = r.compile(config)
	r.publish(func(string) routing.Servers { return r.at(nowhere) })
	store.Publish(&snapshot.Snapshot{Table: r.table, Ready: true})
	return r
}

// publish says who the servers of each Service are. It comes before the first call.
func (r *rig) publish(of func(service string) routing.Servers) {
	r.t.Helper()
	n := 0
	for target := range r.table.Targets() {
		if target.Servers.Kind != "" {
			r.members.Publish(target.Servers, of(target.Servers.Name))
			n++
		}
	}
	if n == 0 {
		r.t.Fatal("no target of the configuration has servers")
	}
}

// at gives the servers, each in a zone.
func (r *rig) at(zone func(i int) string) (all routing.Servers) {
	for i := range r.servers {
		all = append(all, routing.Server{Address: fmt.Sprintf("127.0.1.%d", 1+i), Port: port, Region: "r", Zone: zone(i)})
	}
	return all
}

func (r *rig) compile(config string) *routing.Table {
	r.t.Helper()
	var o routing.Objects
	for doc := range strings.SplitSeq(config, "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		if _, err := o.Decode([]byte(doc), "default"); err != nil {
			r.t.Fatal(err)
		}
	}
	table, problems := routing.Compile(o, &routing.Workload{Namespace: "remora-gateway", Labels: map[string]string{"istio": "ingressgateway"}, Gateway: true})
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			r.t.Fatalf("%s %s", p.Object, p)
		}
	}
	return table
}

// ask gives the number of the server that answers.
func (r *rig) ask(req *http.Request) (int, error) {
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	var number int
	if _, err := fmt.Sscan(string(text), &number); err != nil || resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("answered %s: %.300s", resp.Status, text)
	}
	return number, nil
}

func (r *rig) request(header ...string) *http.Request {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+host+"/", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

// chat is a chat completion with a prompt of so many words.
func (r *rig) chat(words int, header ...string) *http.Request {
	body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", words) + `"}]}`
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "http://"+models+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

// calls makes n calls, so many at once, and counts them by server.
func (r *rig) calls(n, atOnce int, request func(i int) *http.Request) []int {
	r.t.Helper()
	counts := make([]int, len(r.servers))
	next := make(chan int)
	go func() {
		defer close(next)
		for i := range n {
			next <- i
		}
	}()
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := range next {
				server, err := r.ask(request(i))
				if err != nil {
					r.t.Error(err)
					continue
				}
				mu.Lock()
				counts[server]++
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return counts
}

// hold begins a call that is not answered, and gives the number of the server that it is at.
func (r *rig) hold(req *http.Request) int {
	r.t.Helper()
	req.Header.Set(holdHead, "yes")
	failed := make(chan error, 1)
	go func() {
		_, err := r.ask(req)
		failed <- err
	}()
	for {
		for _, s := range r.servers {
			select {
			case <-s.held:
				return s.number
			default:
			}
		}
		select {
		case err := <-failed:
			r.t.Fatalf("a call that was to be held has ended: %v", err)
		default:
		}
	}
}
