package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/modelserver"
	"remora.dev/remora/test/bench/pinned"
)

// realRun is a run with HTTP, in real time.
type realRun struct {
	servers    int
	load       float64
	span, warm time.Duration
	simulated  int // how often the same calls are simulated, each time with other draws of the balancer
}

var (
	fullReal  = realRun{servers: 4, load: 0.8, span: time.Minute, warm: 10 * time.Second, simulated: 100}
	quickReal = realRun{servers: 2, load: 0.5, span: 2 * time.Second, simulated: 3}
)

const gatewayHost = "models.example.com"

// What a user writes for self-hosted models behind the gateway, and below it what a cluster knows of the pods.
const gatewayConfig = `apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: models, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: %[1]d, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: models, namespace: default}
spec:
  host: ` + gatewayHost + `
  gateways: [models]
  rules:
  - name: all
    backendRefs:
    - backendRef: {kind: Service, name: models, port: 80}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: models
  namespace: default
  annotations: %[3]s
spec:
  host: models
  trafficPolicy:
    loadBalancer: {simple: %[2]s}
---
apiVersion: v1
kind: Service
metadata: {name: models, namespace: default}
spec:
  selector: {app: models}
  ports: [{name: http, port: 80, targetPort: 8080}]
`

const sliceConfig = `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: models-%[1]d, namespace: default, labels: {kubernetes.io/service-name: models}}
addressType: IPv4
ports: [{name: http, port: %[3]d, protocol: TCP}]
endpoints: [{addresses: [%[2]s], conditions: {ready: true}}]
`

func (r realRun) run(ctx context.Context, sidecar string, out, progress io.Writer, form figures.Form) error {
	binary, err := filepath.Abs(sidecar)
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		fmt.Fprintf(out, "\nFor real: MISSING: no sidecar there (`make build` makes it): %v\n", err)
		return nil
	}
	loadCore, proxyCore, err := pinned.Cores()
	if err != nil {
		return err
	}
	if err := pinned.BindSelf(loadCore); err != nil {
		return err
	}
	models, addresses, err := r.beginModels(loadCore)
	if err != nil {
		return err
	}
	defer models.Stop()
	arrivals := mixed.Arrivals(rand.New(rand.NewPCG(1, 1)), r.load*float64(r.servers)*capacity(mixed), r.span)
	warm, _ := slices.BinarySearchFunc(arrivals, r.warm, func(a modelserver.Arrival, t time.Duration) int { return int(a.At - t) })
	fmt.Fprintf(out, "\nFor real, over HTTP and through the gateway: %d calls within %v, %s, %s %% load of %d servers; beside it the same calls "+
		"simulated %d times (median, and from least to most):\n\n", len(arrivals), r.span, mixed.Name, percent(r.load), r.servers, r.simulated)
	t := figures.Table{{"", "p50 for real, s", "p50 simulated, s", "p99 for real, s", "p99 simulated, s"}}
	for _, c := range contenders {
		fmt.Fprintf(progress, "%d calls for real, %s, %v\n", len(arrivals), c.name, r.span)
		got, err := r.through(ctx, binary, proxyCore, c, addresses, arrivals)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		p50, p99 := r.simulate(c, arrivals, warm)
		times := figures.Times(got.first[warm:])
		t = append(t, []string{c.name, seconds(times.Quantile(0.5).Seconds()), p50, seconds(times.Quantile(0.99).Seconds()), p99})
	}
	t.Write(out, form)
	return nil
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

func (r realRun) simulate(c contender, arrivals []modelserver.Arrival, warm int) (p50, p99 string) {
	var fifty, most []float64
	for i := range r.simulated {
		first := figures.Times(scenario{policy: c.policy, servers: r.servers, chance: uint64(i)}.run(arrivals)[warm:])
		fifty = append(fifty, first.Quantile(0.5).Seconds())
		most = append(most, first.Quantile(0.99).Seconds())
	}
	say := func(s span) string { return fmt.Sprintf("%.3f (%.3f–%.3f)", s.middle, s.low, s.high) }
	return say(spanOf(fifty)), say(spanOf(most))
}

func (r realRun) beginModels(core int) (*pinned.Process, []netip.AddrPort, error) {
	p, err := pinned.Launch("models", core, []string{pinned.Self, "models", fmt.Sprint(r.servers)})
	if err != nil {
		return nil, nil, err
	}
	var all []netip.AddrPort
	for range r.servers {
		line, err := p.Out.ReadString('\n')
		var at netip.AddrPort
		if err == nil {
			at, err = netip.ParseAddrPort(strings.TrimSpace(line))
		}
		if err != nil {
			err = p.Explain(err)
			p.Stop()
			return nil, nil, err
		}
		all = append(all, at)
	}
	return p, all, nil
}

// through sends all calls through a gateway of its own.
func (r realRun) through(ctx context.Context, binary string, core int, c contender, servers []netip.AddrPort, arrivals []modelserver.Arrival) (asked, error) {
	folder, err := os.MkdirTemp("", "remora-bench-models-")
	if err != nil {
		return asked{}, err
	}
	defer os.RemoveAll(folder)
	var ports [3]int
	for i := range ports {
		if ports[i], err = pinned.FreePort(); err != nil {
			return asked{}, err
		}
	}
	simple, annotations := c.name, "{}"
	if c.name == "LEAST_TOKENS" { // Istio's resource has no such word
		simple, annotations = "LEAST_REQUEST", "{remora.dev/load-balancer: LEAST_TOKENS}"
	}
	text := fmt.Appendf(nil, gatewayConfig, ports[0], simple, annotations)
	for i, s := range servers {
		text = fmt.Appendf(text, sliceConfig, i, s.Addr(), s.Port())
	}
	if err := os.WriteFile(filepath.Join(folder, "gateway.yaml"), text, 0o600); err != nil {
		return asked{}, err
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	p, err := pinned.Launch("remora", core, []string{binary, "gateway", "--config", folder, "--admin", at(1), "--health", at(2)})
	if err != nil {
		return asked{}, err
	}
	defer p.Stop()
	if err := ready(ctx, p, "http://"+at(2)+"/readyz", at(0)); err != nil {
		return asked{}, p.Explain(err)
	}
	all, err := ask(ctx, "http://"+at(0)+"/v1/chat/completions", gatewayHost, arrivals)
	if err != nil {
		err = p.Explain(err)
	}
	return all, err
}

// ready waits until a gateway says that it is, and listens.
func ready(ctx context.Context, p *pinned.Process, url, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	attempts := time.NewTicker(20 * time.Millisecond)
	defer attempts.Stop()
	for {
		err := probe(ctx, url, address)
		if err == nil {
			return nil
		}
		select {
		case <-attempts.C:
		case <-p.Exited:
			return err
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		}
	}
}

func probe(ctx context.Context, url, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}
