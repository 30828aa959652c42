package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/sidecar/launch"
)

// behindGateway is the example of many: a Service, its servers, and what leads to it.
const behindGateway = `apiVersion: v1
kind: Service
metadata: {name: api-service}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: api-service-1, labels: {kubernetes.io/service-name: api-service}}
addressType: IPv4
ports: [{name: "", port: %d}]
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: api-virtual-service}
spec:
  hosts: [api.example.com]
  gateways: [api-gateway]
  http: [{route: [{destination: {host: api-service, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: api-gateway}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: %d, name: http, protocol: HTTP}, hosts: ["*"]}]
`

func TestAGatewayServesThePortsOfItsGatewaysFromAFile(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello "+r.Host) }))
	defer backend.Close()
	free := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	port, servers := free(), backend.Listener.Addr().(*net.TCPAddr).Port
	config := write(t, "all.yaml", fmt.Sprintf(behindGateway, servers, port))
	process := exec.CommandContext(t.Context(), os.Args[0], "gateway", "--config", config, "--bind", "127.0.0.1", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0")
	process.Env = append(os.Environ(), "TEST_AS_SIDECAR=1")
	logged, err := process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	requests, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = process.Process.Kill() }()
	lines := bufio.NewScanner(logged)
	await := func(msg string, port int) { // its lines about other ports, and what else begins meanwhile, come in any order
		t.Helper()
		for lines.Scan() {
			var line struct {
				Msg  string
				Port int
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil && strings.HasPrefix(line.Msg, msg) && line.Port == port {
				return
			}
		}
		t.Fatalf("the log does not say %q of port %d", msg, port)
	}
	call := func(port int) string {
		t.Helper()
		req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "api.example.com"
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	await("listening", port)
	if got := call(port); got != "hello api.example.com" {
		t.Errorf("got %s", got)
	}
	var line struct{ Logger, Host, Client string }
	if err := json.NewDecoder(requests).Decode(&line); err != nil || line.Logger != "access" || line.Host != "api.example.com" || line.Client != "127.0.0.1" {
		t.Errorf("the access log says %+v: %v", line, err)
	}
	other := free()
	if err := os.WriteFile(config, fmt.Appendf(nil, behindGateway, servers, other), 0o600); err != nil {
		t.Fatal(err)
	}
	await("listening", other)
	if got := call(other); got != "hello api.example.com" {
		t.Errorf("got %s", got)
	}
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("stopping", 0)
	if got := call(other); got != "hello api.example.com" {
		t.Errorf("a call that comes while it leaves: %s", got)
	}
	_ = process.Process.Signal(syscall.SIGTERM) // at once
	go func() { _, _ = io.Copy(io.Discard, logged) }()
	_ = process.Wait()
}

func TestOnlyAGatewayLeavesSlowly(t *testing.T) {
	if g := graceOf(launch.Args{Command: launch.Proxy}); g.leave != 0 || g.drain != drainTime {
		t.Errorf("a sidecar: %+v", g)
	}
	g := graceOf(launch.Args{Command: launch.Gateway})
	content, err := os.ReadFile("../config/gateway/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var seconds int
	_, after, _ := strings.Cut(string(content), "terminationGracePeriodSeconds:")
	if _, err := fmt.Sscan(after, &seconds); err != nil || time.Duration(seconds)*time.Second <= g.leave+g.drain+closeTime {
		t.Errorf("Kubernetes gives it %d seconds, and it takes %s and %s", seconds, g.leave, g.drain)
	}
}
