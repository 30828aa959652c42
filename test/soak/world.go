package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"remora.dev/remora/test/collector"
	"remora.dev/remora/test/llmserver"
)

// The hosts. Each has a part of the load, so that the sums of its tokens say something of that part.
const (
	steady  = "steady.example.com" // is well, and its apps stay to the end
	azure   = "azure.example.com"  // the same, with another scheme of keys
	shaky   = "shaky.example.com"  // has faults of its own
	spare   = "spare.example.com"  // takes over where shaky fails
	left    = "left.example.com"   // its apps leave early
	blunt   = "blunt.example.com"  // refuses stream_options
	pool    = "pool.example.com"   // a route: shaky, then spare
	foreign = "foreign.example.com"
)

var names = map[string]string{
	steady: "127.0.0.2", azure: "127.0.0.2", shaky: "127.0.0.2", spare: "127.0.0.2", left: "127.0.0.2", blunt: "127.0.0.2", foreign: "127.0.0.2", pool: "127.0.0.3",
}

// models is how many there are, of which the configuration names one at a time.
const models = 3

const configuration = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: steady}
spec:
  host: steady.example.com
  configs: {defaultConfig: {openAIConfig: {model: model-MODEL, apiKey: sk-steady}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: azure}
spec:
  host: azure.example.com
  path: /openai/deployments/it/chat/completions
  authScheme: api-key
  query: {api-version: "2024-10-21"}
  configs: {defaultConfig: {openAIConfig: {model: model-MODEL, apiKey: sk-azure}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: shaky}
spec:
  host: shaky.example.com
  configs: {defaultConfig: {openAIConfig: {model: shaky-MODEL, apiKey: sk-shaky}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: spare}
spec:
  host: spare.example.com
  configs: {defaultConfig: {openAIConfig: {model: spare-MODEL, apiKey: sk-spare}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: left}
spec:
  host: left.example.com
  configs: {defaultConfig: {openAIConfig: {model: left-MODEL, apiKey: sk-left}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: blunt}
spec:
  host: blunt.example.com
  configs: {defaultConfig: {openAIConfig: {model: blunt-MODEL, apiKey: sk-blunt}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: shaky}
spec:
  host: shaky.example.com
  rules:
  - name: it
    backendRefs: [{providerHost: shaky.example.com}]
    timeouts: {firstToken: 3s, idle: 3s}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: pool}
spec:
  host: pool.example.com
  rules:
  - name: it
    backendRefs:
    - {providerHost: shaky.example.com}
    - {providerHost: spare.example.com, priority: 1}
    timeouts: {firstToken: 3s, idle: 3s}
    retries: {attempts: 2, retryOn: [connect-failure, rate-limited, reset, 5xx, first-token]}
`

// telemetry has every request in the access log, and a share of them in traces.
const telemetry = `
---
apiVersion: v1
kind: ConfigMap
metadata: {name: remora-telemetry}
data:
  telemetry.yaml: |
    traces: {endpoint: "COLLECTOR", sample: SAMPLE}
`

// world is a provider and a sidecar in front of it.
type world struct {
	settings   settings
	folder     string
	begun      time.Time
	provider   *llmserver.Server
	sidecar    *exec.Cmd
	ended      chan struct{} // closed when the sidecar has
	said       bytes.Buffer  // by the sidecar; to be read when it has ended
	log        accessLog
	collector  *collector.Collector
	begunCalls atomic.Int64
	listen     string
	admin      string
	watcher    *http.Client
	counts     *counts
}

func newWorld(ctx context.Context, folder string, s settings) (_ *world, err error) {
	w := &world{settings: s, folder: folder, begun: time.Now(), counts: newCounts(), watcher: &http.Client{Timeout: 30 * time.Second}, log: accessLog{told: told{}}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	w.provider, err = llmserver.Start(llmserver.Options{
		Addr: "127.0.0.2:443", PlainAddr: "127.0.0.2:80", Quiet: true,
		Hosts:      []string{steady, azure, shaky, spare, left, blunt, foreign},
		Keys:       map[string]string{steady: "sk-steady", azure: "sk-azure", shaky: "sk-shaky", spare: "sk-spare", left: "sk-left", blunt: "sk-blunt"},
		KeyHeaders: map[string]string{azure: "api-key"},
		Queries:    map[string]string{azure: "api-version=2024-10-21"},
	})
	if err != nil {
		return nil, err
	}
	if w.collector, err = collector.Start(collector.Options{}); err != nil {
		return nil, err
	}
	if err := w.provider.WriteCA(w.path("ca.pem")); err != nil {
		return nil, err
	}
	if err := os.Mkdir(w.path("config"), 0o700); err != nil {
		return nil, err
	}
	if err := w.configure(0); err != nil {
		return nil, err
	}
	return w, w.start(ctx)
}

func (w *world) path(name string) string { return filepath.Join(w.folder, name) }

// configure replaces the configuration, whole from one instant on.
func (w *world) configure(model int) error {
	sample := "0.01"
	if w.settings.calls > 0 {
		sample = "1"
	}
	text := strings.NewReplacer("MODEL", string(rune('a'+model)), "COLLECTOR", w.collector.URL, "SAMPLE", sample).Replace(configuration + telemetry)
	if err := os.WriteFile(w.path("draft"), []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(w.path("draft"), filepath.Join(w.path("config"), "all.yaml"))
}

// start runs the sidecar and waits until it is ready.
func (w *world) start(ctx context.Context) error {
	binary := w.settings.sidecar
	if binary == "" {
		binary = w.path("sidecar")
		build := exec.CommandContext(ctx, "go", "build", "-o", binary, "remora.dev/remora/sidecar")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the sidecar: %w\n%s", err, out)
		}
	}
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return err
	}
	w.listen, w.admin = ports[0], ports[1]
	w.sidecar = exec.CommandContext(ctx, binary, "proxy", "--config="+w.path("config"), "--listen="+w.listen, "--admin="+w.admin, "--health="+ports[2],
		"--trusted-ca="+w.path("ca.pem"))
	w.sidecar.Env = append(os.Environ(), "GOMEMLIMIT=256MiB") // as in a pod of some size
	w.sidecar.Stdout, w.sidecar.Stderr = &w.log, &w.said
	w.sidecar.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.sidecar.Start(); err != nil {
		return err
	}
	w.ended = make(chan struct{})
	go func() {
		_ = w.sidecar.Wait() // how it ended is in what it said
		close(w.ended)
	}()
	for {
		if ready, err := w.get(ports[2], "/readyz"); err == nil {
			_ = ready.Body.Close()
			if ready.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-w.ended:
			return fmt.Errorf("the sidecar ended:\n%s", &w.said)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end awaits the end of all requests, gives what the sidecar has counted of them, and ends it and the provider in order: what is left of the
// log and the traces comes by then.
func (w *world) end(ctx context.Context) (samples, error) {
	var s samples
	for {
		var err error
		if s, err = w.samples(); err != nil {
			return nil, err
		}
		if s["remora_requests_in_flight"] == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%v requests do not end: %w", s["remora_requests_in_flight"], ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := w.sidecar.Process.Signal(syscall.SIGTERM); err != nil {
		return nil, err
	}
	select {
	case <-w.ended:
	case <-ctx.Done():
		return nil, fmt.Errorf("the sidecar does not end: %w", ctx.Err())
	}
	w.provider.Close()
	return s, nil
}

func (w *world) close() {
	if w.ended != nil {
		_ = w.sidecar.Process.Kill()
		<-w.ended
	}
	if w.provider != nil {
		w.provider.Close()
	}
	if w.collector != nil {
		w.collector.Close()
	}
}

// freePorts gives addresses that nobody else can take: there is nobody else in this namespace.
func freePorts(ctx context.Context, n int) (all []string, err error) {
	for range n {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}
