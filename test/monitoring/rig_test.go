package monitoring

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/test/cluster/controlplane"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

// The providers: with two keys, one of which it refuses; the one that others fall back to; one where the app chooses the model; and one
// that nobody answers for.
const (
	qwenHost = "dashscope.aliyuncs.com"
	kimiHost = "api.moonshot.cn"
	openHost = "api.openai.com"
	downHost = "down.example.com"
)

// target is a process that Prometheus reads.
type target struct {
	job, address string
	labels       map[string]string
	listen       string // where its apps call
}

// rig is real processes under load, and what reads them.
type rig struct {
	folder     string
	qwen, kimi *llmserver.Server
	targets    []target
	port       int    // where the gateway listens
	last       func() // ends the process that was started last
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{folder: t.TempDir()}
	start := func(hosts ...string) *llmserver.Server {
		o := llmserver.Options{Hosts: hosts, PlainAddr: "127.0.0.1:0"}
		if hosts[0] == qwenHost {
			o.Keys = map[string]string{qwenHost: "sk-good"}
		}
		s, err := llmserver.Start(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	r.qwen, r.kimi = start(qwenHost, openHost), start(kimiHost, "*")
	collector := r.collector(t)
	for _, s := range []struct{ namespace, pod, workload, collector string }{
		{"shop", "web-1", "Deployment/web", collector}, {"shop", "web-2", "Deployment/web", collector}, {"billing", "batch-1", "CronJob/batch", "127.0.0.1:9"},
	} {
		file := r.write(t, s.pod+".yaml", strings.ReplaceAll(r.providers(s.collector), "NAMESPACE", s.namespace))
		r.sidecar(t, s.namespace, s.pod, s.workload, launch.Proxy, "--config", file)
	}
	r.startGateway(t)
	r.startInstallation(t)
	return r
}

func (r *rig) write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(r.folder, name)
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// collector takes spans.
func (r *rig) collector(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) })} //nolint:gosec // on loopback
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// providers is the configuration of a sidecar.
func (r *rig) providers(collector string) string {
	ca := func(s *llmserver.Server) string { return base64.StdEncoding.EncodeToString(s.CAPEM()) }
	text, err := os.ReadFile("testdata/sidecar.yaml")
	if err != nil {
		panic(err)
	}
	return strings.NewReplacer("QWEN_CA", ca(r.qwen), "KIMI_CA", ca(r.kimi), "QWEN_PORT", port(r.qwen.Addr()), "KIMI_PORT", port(r.kimi.Addr()),
		"COLLECTOR", collector).Replace(string(text))
}

// sidecar runs one, or a gateway, and has Prometheus read it.
func (r *rig) sidecar(t *testing.T, namespace, pod, workload, command string, args ...string) {
	t.Helper()
	const any = "127.0.0.1:0"
	args = append([]string{command, "--admin", any, "--health", any}, args...)
	if command == launch.Proxy {
		args = append(args, "--listen", any)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), launch.PodVariable+"="+pod, launch.NamespaceVariable+"="+namespace, launch.WorkloadVariable+"="+workload, launch.ServiceAccountVariable+"=default")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	r.last = func() { _ = cmd.Process.Kill() }
	var serving struct {
		Msg, Health string
		Listen      []string
	}
	lines := bufio.NewScanner(stderr)
	said := ""
	for serving.Msg != "serving" {
		if !lines.Scan() {
			t.Fatalf("%s does not serve:\n%s", pod, said)
		}
		said += lines.Text() + "\n"
		_ = json.Unmarshal(lines.Bytes(), &serving) // other lines have other fields
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	of := target{job: "remora-sidecars", address: serving.Health, labels: map[string]string{"namespace": namespace, "pod": pod}}
	if len(serving.Listen) > 0 {
		of.listen = serving.Listen[0]
	}
	r.targets = append(r.targets, of)
}

// startGateway runs one with a Service that has a server, and a port that another process has.
func (r *rig) startGateway(t *testing.T) {
	t.Helper()
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	r.port = ports[0]
	file := r.write(t, "gateway.yaml", strings.NewReplacer("SERVER_PORT", port(r.kimi.PlainAddr()), "GATEWAY_PORT", fmt.Sprint(r.port),
		"TAKEN_PORT", port(r.qwen.PlainAddr())).Replace(read(t, "testdata/gateway.yaml")))
	r.sidecar(t, "edge", "gateway-1", "Deployment/remora-gateway", launch.Gateway, "--config", file, "--bind", "127.0.0.1")
}

// startInstallation runs webhook and controller on an API server, and a sidecar that has a token of it.
func (r *rig) startInstallation(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	cp, err := controlplane.Start(ctx, controlplane.Options{Binaries: assetsDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	in, err := installation.Start(ctx, cp)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"create", "namespace", "kept"}, {"label", "namespace", "kept", "remora.dev/inject=enabled"}} {
		if out, err := in.Kubectl(ctx, args...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for pod, p := range map[string]*controlplane.Process{"webhook-1": in.Webhook, "controller-1": in.Controller} {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(line), "--metrics=")
		address, _, _ := strings.Cut(rest, "\x00")
		r.targets = append(r.targets, target{job: "remora", address: address, labels: map[string]string{"pod": pod}})
	}
	if out, err := in.Kubectl(ctx, "-n", "kept", "wait", "--for=create", "secret/remora-sidecar-access", "--timeout=1m"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	kubeconfig, err := in.Account(ctx, "kept", "remora-sidecar")
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, kubeconfig)
	_, rest, _ := strings.Cut(text, "token: ")
	token, _, _ := strings.Cut(rest, "\n")
	file := r.write(t, "token", token) // as in a pod: what a file has is told of
	r.sidecar(t, "kept", "app-1", "Deployment/app", launch.Proxy, "--namespace", "kept", "--kubeconfig",
		r.write(t, "kubeconfig", strings.Replace(text, "token: "+token, "tokenFile: "+file, 1)))
}
