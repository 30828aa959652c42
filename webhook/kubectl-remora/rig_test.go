package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"remora.dev/remora/apis/v1beta1"
)

// binary is the sidecar, as it is shipped.
var binary = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "kubectl-remora")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "sidecar")
	if out, err := exec.Command("go", "build", "-o", path, "../../sidecar").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// sidecar is a process that serves a configuration from a file.
type sidecar struct{ app, admin, health string }

func startSidecar(t *testing.T, config string) sidecar {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(t.Context(), path, "proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--config", file)
	log, err := process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			Msg, Admin, Health string
			Listen             []string
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return sidecar{line.Listen[0], strings.TrimSuffix(strings.TrimPrefix(line.Admin, "http://"), "/config"), line.Health}
		}
	}
	t.Fatal("the sidecar ended before it served")
	return sidecar{}
}

// pods is an API server with pods of a namespace, whose ports are those of processes here.
type pods struct {
	*httptest.Server
	mu    sync.Mutex
	names []string
	ports map[string]map[string]string // pod → port → address
	logs  map[string]string
}

func startPods(t *testing.T) *pods {
	t.Helper()
	p := &pods{ports: map[string]map[string]string{}, logs: map[string]string{}}
	mux := http.NewServeMux()
	answer := func(path string, value func(r *http.Request) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value(r))
		})
	}
	answer("/api", func(*http.Request) any {
		return metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}
	})
	answer("/apis", func(*http.Request) any {
		return metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	})
	answer("/api/v1", func(*http.Request) any {
		return metav1.APIResourceList{
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "v1",
			APIResources: []metav1.APIResource{{Name: "pods", SingularName: "pod", Namespaced: true, Kind: "Pod", Verbs: metav1.Verbs{"get", "list"}, ShortNames: []string{"po"}}},
		}
	})
	answer("/api/v1/namespaces/demo/pods", func(*http.Request) any {
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, name := range p.names {
			list.Items = append(list.Items, p.pod(name))
		}
		return list
	})
	answer("/api/v1/namespaces/demo/pods/{name}", func(r *http.Request) any { return p.pod(r.PathValue("name")) })
	mux.HandleFunc("GET /api/v1/namespaces/demo/pods/{name}/log", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, p.logs[r.PathValue("name")])
	})
	mux.HandleFunc("POST /api/v1/namespaces/demo/pods/{name}/portforward", p.forward)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *pods) add(name string, of sidecar) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names = append(p.names, name)
	p.ports[name] = map[string]string{"14020": of.admin, "14021": of.health}
}

func (p *pods) pod(name string) corev1.Pod {
	return corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name, Labels: map[string]string{v1beta1.InjectedLabel: "true"}},
		Spec:       corev1.PodSpec{InitContainers: []corev1.Container{{Name: v1beta1.SidecarContainer, Image: "remora.dev/sidecar:latest"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{{
			Name: v1beta1.SidecarContainer, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}
}

// forward is what the kubelet does with a tunnel.
func (p *pods) forward(w http.ResponseWriter, r *http.Request) {
	streams := make(chan httpstream.Stream)
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		go func() { streams <- s }()
		return nil
	})
	if connection == nil {
		return
	}
	defer connection.Close()
	faults := map[string]httpstream.Stream{}
	data := map[string]httpstream.Stream{}
	for {
		select {
		case <-connection.CloseChan():
			return
		case s := <-streams:
			id := s.Headers().Get(corev1.PortForwardRequestIDHeader)
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				faults[id] = s
			} else {
				data[id] = s
			}
			if faults[id] != nil && data[id] != nil {
				go carry(data[id], faults[id], p.ports[r.PathValue("name")][s.Headers().Get(corev1.PortHeader)])
			}
		}
	}
}

func carry(data, fault httpstream.Stream, address string) {
	defer fault.Close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		_, _ = fmt.Fprintf(fault, "nothing listens there")
		return
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(conn, data) }()
	_, _ = io.Copy(data, conn)
	_ = data.Close()
}

// call runs the program, and gives what it writes and its exit code.
func (p *pods) call(ctx context.Context, args ...string) (out, fault string, code int) {
	var stdout, stderr bytes.Buffer
	args = append(args, "--server", p.URL, "-n", "demo")
	code = run(ctx, args, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &stdout, ErrOut: &stderr})
	return stdout.String(), stderr.String(), code
}
