package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/cluster/crds"
	"remora.dev/remora/test/installation"
)

// Where the servers are. All of these addresses are this machine's, and one listener answers for all of them; the API server refuses
// endpoints on loopback.
const (
	serverRange = "10.64.0.0/10"
	serverPort  = 8080
	gatewayAt   = "127.0.0.9"
	gatewayPort = 8088
)

const (
	endpointsPerSlice = 100 // as Kubernetes fills them
	slicesPerService  = 10
	namespaceOfMany   = "many"
)

// endpointServices are the Services and what leads to them: a host for each of a number, and one whose only server is replaced.
func endpointServices(services int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: many}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: %d, name: http, protocol: HTTP}
    hosts: ["*"]
`, gatewayPort)
	service := func(name string) {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  ports: [{name: http, port: 80, targetPort: %[2]d}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s}
spec:
  hosts: [%[1]s.example.com]
  gateways: [many]
  http:
  - route: [{destination: {host: %[1]s, port: {number: 80}}}]
`, name, serverPort)
	}
	service("replaced")
	for i := range services {
		service(serviceName(i))
	}
	return b.String()
}

func serviceName(i int) string { return fmt.Sprintf("many-%d", i) }

// addresses numbers those that servers have had; none is used twice.
type addresses struct{ last atomic.Uint32 }

func (a *addresses) next() string {
	n := a.last.Add(1)
	return fmt.Sprintf("10.%d.%d.%d", 64+(n>>16&63), n>>8&255, n&255)
}

func slice(service string, number int, addresses ...string) *discoveryv1.EndpointSlice {
	name, port, ready := "http", int32(serverPort), true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", service, number), Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return s
}

// churn is what changes endpoints all the time.
type churn struct {
	client kubernetes.Interface
	addresses
	slices          []*discoveryv1.EndpointSlice
	replaced, wrote atomic.Int64 // endpoints, and slices
}

func (c *churn) api() interface {
	Create(context.Context, *discoveryv1.EndpointSlice, metav1.CreateOptions) (*discoveryv1.EndpointSlice, error)
	Update(context.Context, *discoveryv1.EndpointSlice, metav1.UpdateOptions) (*discoveryv1.EndpointSlice, error)
} {
	return c.client.DiscoveryV1().EndpointSlices(namespaceOfMany)
}

// run replaces one endpoint after the other, so many a second, until ctx ends. Where the API server takes fewer writes than that, a write
// replaces several endpoints of its slice, as Kubernetes has them do.
func (c *churn) run(ctx context.Context, perSecond int) error {
	const writers = 16 // each has slices of its own: no write meets another
	failed := make(chan error, writers)
	for w := range writers {
		go func() {
			tick := time.NewTicker(time.Second * writers / time.Duration(perSecond))
			defer tick.Stop()
			began, done := time.Now(), 0
			for n := w; ; n += writers {
				select {
				case <-ctx.Done():
					failed <- nil
					return
				case <-tick.C:
				}
				// The writer's slices are those whose number leaves w when divided by writers.
				i := n % (len(c.slices) / writers * writers)
				s := c.slices[i]
				due := int(time.Since(began).Seconds()*float64(perSecond)/writers) - done
				due = min(max(due, 1), len(s.Endpoints))
				for k := range due {
					s.Endpoints[(done+k)%len(s.Endpoints)].Addresses = []string{c.next()}
				}
				updated, err := c.api().Update(context.WithoutCancel(ctx), s, metav1.UpdateOptions{})
				if err != nil {
					failed <- err
					return
				}
				c.slices[i] = updated
				done += due
				c.replaced.Add(int64(due))
				c.wrote.Add(1)
			}
		}()
	}
	var errs []error
	for range writers {
		errs = append(errs, <-failed)
	}
	return errors.Join(errs...)
}

// pace is what has been changed since.
type pace struct {
	began           time.Time
	replaced, wrote int64
}

func (c *churn) pace() pace { return pace{time.Now(), c.replaced.Load(), c.wrote.Load()} }

// since gives how many endpoints were replaced in a second, and by how many writes.
func (c *churn) since(p pace) (replaced, wrote float64) {
	took := time.Since(p.began).Seconds()
	return float64(c.replaced.Load()-p.replaced) / took, float64(c.wrote.Load()-p.wrote) / took
}

// endpoints measures a gateway in front of many servers that come and go.
func (b *bench) endpoints(ctx context.Context) error {
	services := b.manyEndpoints / endpointsPerSlice / slicesPerService
	fmt.Fprintf(b.progress, "%d endpoints in %d Services\n", b.manyEndpoints, services)
	if out, err := exec.CommandContext(ctx, "ip", "route", "replace", "local", serverRange, "dev", "lo").CombinedOutput(); err != nil {
		return fmt.Errorf("ip route: %w: %s", err, out)
	}
	listener, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", serverPort))
	if err != nil {
		return err
	}
	serving := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
	})}
	go func() { _ = serving.Serve(listener) }() // until it is closed
	defer serving.Close()
	gateway, c, err := b.raiseGateway(ctx, services)
	if err != nil {
		return err
	}
	defer gateway.Kill()
	before, err := figures.Resident(gateway.PID())
	if err != nil {
		return err
	}
	if err := c.create(ctx, services); err != nil {
		return err
	}
	app := &http.Client{}
	defer app.CloseIdleConnections()
	for i := range services {
		if err := called(ctx, app, serviceName(i), func(string) bool { return true }); err != nil {
			return err
		}
	}
	after, err := figures.Resident(gateway.PID())
	if err != nil {
		return err
	}
	b.say("\nA gateway with %d endpoints in %d Services: %.1f MiB resident, %.1f before they were there", b.manyEndpoints, services, after, before)
	if err := b.churnAlone(ctx, gateway, c); err != nil {
		return err
	}
	return b.propagation(ctx, gateway, c, app)
}

// raiseGateway installs and starts one, with what leads to the Services.
func (b *bench) raiseGateway(ctx context.Context, services int) (*installation.Gateway, *churn, error) {
	manifest, err := crds.Manifest(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, apply := range []struct {
		text string
		args []string
	}{
		{manifest, []string{"apply", "--server-side", "-f", "-"}},
		{"", append([]string{"wait", "--for=condition=Established", "--timeout=1m"}, definitions()...)},
		{"", []string{"create", "namespace", namespaceOfMany}},
		{endpointServices(services), []string{"-n", namespaceOfMany, "apply", "-f", "-"}},
	} {
		if out, err := b.KubectlWith(ctx, apply.text, apply.args...); err != nil {
			return nil, nil, fmt.Errorf("%w\n%s", err, out)
		}
	}
	config := *b.Config()
	config.QPS, config.ContentType = -1, runtime.ContentTypeProtobuf
	c := &churn{}
	if c.client, err = kubernetes.NewForConfig(&config); err != nil {
		return nil, nil, err
	}
	gateway, err := b.Gateway(ctx, gatewayAt)
	if err != nil {
		return nil, nil, err
	}
	return gateway, c, gateway.Start(ctx)
}

func definitions() (names []string) {
	for _, name := range crds.All {
		names = append(names, "crd/"+name)
	}
	return names
}

func (c *churn) create(ctx context.Context, services int) error {
	for i := range services {
		for j := range slicesPerService {
			var all []string
			for range endpointsPerSlice {
				all = append(all, c.next())
			}
			s, err := c.api().Create(ctx, slice(serviceName(i), j, all...), metav1.CreateOptions{})
			if err != nil {
				return err
			}
			c.slices = append(c.slices, s)
		}
	}
	return nil
}

// called calls a Service until it is answered by a server that will do.
func called(ctx context.Context, app *http.Client, service string, will func(server string) bool) error {
	limit := time.Now().Add(time.Minute)
	for {
		server, err := callService(ctx, app, service)
		switch {
		case err == nil && will(server):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(limit):
			return fmt.Errorf("a call to Service %s is answered by %q after a minute (%w)", service, server, err)
		}
	}
}

func callService(ctx context.Context, app *http.Client, service string) (server string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/", gatewayAt, gatewayPort), nil)
	if err != nil {
		return "", err
	}
	req.Host = service + ".example.com"
	resp, err := app.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s: %.300s", resp.Status, text)
	}
	return string(text), err
}

// churnAlone looks at what the gateway uses while nothing but endpoints changes.
func (b *bench) churnAlone(ctx context.Context, gateway *installation.Gateway, c *churn) error {
	fmt.Fprintf(b.progress, "%d changes a second for %v\n", b.churnRate, b.churned)
	ctx, cancel := context.WithTimeout(ctx, b.churned)
	defer cancel()
	pace := c.pace()
	before, err := figures.CPUTime(gateway.PID())
	if err != nil {
		return err
	}
	if err := c.run(ctx, b.churnRate); err != nil {
		return err
	}
	replaced, wrote := c.since(pace)
	took := time.Since(pace.began).Seconds()
	after, err := figures.CPUTime(gateway.PID())
	if err != nil {
		return err
	}
	mib, err := figures.Resident(gateway.PID())
	if err != nil {
		return err
	}
	used := (after - before).Seconds() / took // of a core
	b.say("%.0f endpoints a second replaced for %.0f s, by %.0f writes of slices of %d: the gateway uses %.1f %% of a core, %.0f µs for each endpoint, and has %.1f MiB resident",
		replaced, took, wrote, endpointsPerSlice, 100*used, 1e6*used/replaced, mib)
	return nil
}

// propagation takes the time from writing an EndpointSlice to the first call at the new server, while all the others change and are called.
func (b *bench) propagation(ctx context.Context, gateway *installation.Gateway, c *churn, app *http.Client) error {
	fmt.Fprintf(b.progress, "%d replaced servers meanwhile\n", b.replaced)
	replaced, err := c.api().Create(ctx, slice("replaced", 0, c.next()), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := called(ctx, app, "replaced", func(string) bool { return true }); err != nil {
		return err
	}
	churning, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	changed := make(chan error, 1)
	pace := c.pace()
	background.Go(func() { changed <- c.run(churning, b.churnRate) })
	var calls atomic.Int64
	var failed firstError
	for i := range callers {
		background.Go(func() {
			tick := time.NewTicker(callEvery)
			defer tick.Stop()
			for n := i; ; n++ {
				select {
				case <-churning.Done():
					return
				case <-tick.C:
				}
				calls.Add(1)
				if _, err := callService(ctx, app, serviceName(n%(len(c.slices)/slicesPerService))); err != nil {
					failed.note(err)
				}
			}
		})
	}
	var total, written figures.Times
	for range b.replaced {
		at := c.next()
		replaced.Endpoints[0].Addresses = []string{at}
		start := time.Now()
		if replaced, err = c.api().Update(ctx, replaced, metav1.UpdateOptions{}); err != nil {
			return err
		}
		written = append(written, time.Since(start))
		if err := called(ctx, app, "replaced", func(server string) bool { return strings.HasPrefix(server, at+":") }); err != nil {
			return err
		}
		total = append(total, time.Since(start))
	}
	rate, _ := c.since(pace)
	stop()
	background.Wait()
	if err := <-changed; err != nil {
		return err
	}
	mib, err := figures.Resident(gateway.PID())
	if err != nil {
		return err
	}
	b.row("from writing an EndpointSlice to the first call at the new server, %d endpoints, %.0f replaced a second", total, b.manyEndpoints, rate)
	b.row("of it, until the API server had answered", written)
	b.say("Meanwhile %d calls to the others, %d failed; %.1f MiB resident", calls.Load(), failed.count, mib)
	if failed.count > 0 {
		return fmt.Errorf("calls failed while endpoints changed, the first with: %w", failed.first)
	}
	return nil
}

// firstError keeps the first of errors, and counts all.
type firstError struct {
	mu    sync.Mutex
	first error
	count int
}

func (f *firstError) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count++; f.count == 1 {
		f.first = err
	}
}
