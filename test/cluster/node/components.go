//go:build linux

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A component is a process of the node. If one ends, the node does: half a cluster only makes tests hang.
type component struct {
	name    string
	program string
	args    []string
	late    bool // not before the API server is ready
}

func (s *spec) components() []component {
	key := func(name string) string { return s.file("pki", name) }
	config := func(name string) string { return s.file("etc", name) }
	user := func(name string) string { return key(name + ".kubeconfig") }
	all := []component{
		{name: "etcd", program: s.binary("etcd"), args: []string{
			"--data-dir=" + s.file("etcd"), "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn",
			"--unsafe-no-fsync", // the data is worth nothing after a crash
		}},
		{name: "kube-apiserver", program: s.binary("kube-apiserver"), args: []string{
			"--etcd-servers=http://127.0.0.1:2379",
			"--advertise-address=" + s.nodeAddress(), "--bind-address=0.0.0.0", "--secure-port=6443",
			"--service-cluster-ip-range=" + serviceRange, "--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction", "--allow-privileged=true", "--shutdown-delay-duration=0s",
			"--tls-cert-file=" + key("apiserver.crt"), "--tls-private-key-file=" + key("apiserver.key"),
			"--client-ca-file=" + key("ca.crt"),
			"--kubelet-client-certificate=" + key("apiserver-kubelet.crt"), "--kubelet-client-key=" + key("apiserver-kubelet.key"),
			"--kubelet-certificate-authority=" + key("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + key("accounts.pub"), "--service-account-signing-key-file=" + key("accounts.key"),
			// For API servers behind this one: it tells them who is asking.
			"--requestheader-client-ca-file=" + key("front.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + key("front-client.crt"), "--proxy-client-key-file=" + key("front-client.key"),
		}},
	}
	if s.ControlPlane {
		return all
	}
	auth := func(name string) []string {
		return []string{
			"--kubeconfig=" + user(name), "--authentication-kubeconfig=" + user(name), "--authorization-kubeconfig=" + user(name),
			"--leader-elect=false", "--bind-address=127.0.0.1",
		}
	}
	return append(all,
		component{name: "containerd", program: "containerd", args: []string{"--config", config("containerd.toml")}},
		component{name: "kube-controller-manager", program: s.binary("kube-controller-manager"), late: true, args: append(auth("controller-manager"),
			"--service-account-private-key-file="+key("accounts.key"), "--root-ca-file="+key("ca.crt"),
			"--cluster-signing-cert-file="+key("ca.crt"), "--cluster-signing-key-file="+key("ca.key"), "--use-service-account-credentials",
			"--kube-api-qps=300", "--kube-api-burst=600", // at the default of 20 in a second its start takes five seconds longer
		)},
		component{name: "kube-scheduler", program: s.binary("kube-scheduler"), late: true, args: auth("scheduler")},
		component{name: "kubelet", program: s.binary("kubelet"), late: true, args: []string{
			"--config=" + config("kubelet.json"), "--kubeconfig=" + user("kubelet"),
			"--node-ip=" + s.nodeAddress(), "--hostname-override=" + s.Name, "--v=2",
		}},
		component{name: "kube-proxy", program: s.binary("kube-proxy"), late: true, args: []string{
			"--config=" + config("kube-proxy.json"), "--hostname-override=" + s.Name,
		}},
	)
}

// processes are those that PID 1 has started; of all others it only collects the remains.
type processes struct {
	mu      sync.Mutex
	started map[int]string
}

// runComponents returns when a component has ended, or could not be started.
func (s *spec) runComponents() error {
	p := &processes{started: map[int]string{}}
	failed := make(chan error, 2)
	go func() {
		if err := p.startAll(s); err != nil {
			failed <- err
		}
	}()
	go func() { failed <- p.collect() }()
	err := <-failed
	return errors.Join(err, s.write(failedFile, err.Error()+"\n"))
}

func (p *processes) startAll(s *spec) error {
	var late []component
	for _, c := range s.components() {
		if c.late {
			late = append(late, c)
			continue
		}
		if err := p.start(s, c); err != nil {
			return err
		}
	}
	if len(late) == 0 {
		return nil
	}
	// The controller manager gives up at once while the roles of RBAC are missing.
	if err := awaitAPI(context.Background(), s); err != nil {
		return err
	}
	for _, c := range late {
		if err := p.start(s, c); err != nil {
			return err
		}
	}
	return nil
}

func (p *processes) start(s *spec, c component) error {
	program, err := find(c.program)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.log(c.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer nothing.Close()
	p.mu.Lock() // so that an early end is not taken for that of a stranger
	defer p.mu.Unlock()
	process, err := os.StartProcess(program, append([]string{program}, c.args...), &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{nothing, log, log},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	p.started[process.Pid] = c.name
	return process.Release()
}

// collect waits for every process that ends, orphans of pods included, and returns at the first that was started here.
func (p *processes) collect() error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD): // nothing is started yet
			<-again.C
			continue
		case err != nil:
			return err
		}
		p.mu.Lock()
		name, ours := p.started[pid]
		p.mu.Unlock()
		switch {
		case !ours:
		case status.Signaled():
			return fmt.Errorf("%s was ended by a signal: %s", name, status.Signal())
		default:
			return fmt.Errorf("%s has ended with exit code %d", name, status.ExitStatus())
		}
	}
}

// awaitAPI waits until the API server is ready.
func awaitAPI(ctx context.Context, s *spec) error {
	authority, err := os.ReadFile(s.file("pki", "ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client := &http.Client{
		Timeout: 5 * time.Second,
		// No proxy: it could not reach the node.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
	}
	return poll(ctx, "the API server", func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url()+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// poll asks again and again until the answer is no error. The machine offers nothing to wait on for what it is used for.
func poll(ctx context.Context, what string, ask func() error) error {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)", what, err, context.Cause(ctx))
		}
	}
}

// adminFolders are where Debian has programs that only root runs; root's PATH may lack them.
const adminFolders = "/usr/local/sbin:/usr/sbin:/sbin"

func searchPath() string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	return path + ":" + adminFolders
}

// find is exec.LookPath with those folders too.
func find(program string) (string, error) {
	if filepath.IsAbs(program) {
		return program, nil
	}
	for _, dir := range filepath.SplitList(searchPath()) {
		path := filepath.Join(dir, program)
		if status, err := os.Stat(path); err == nil && status.Mode().IsRegular() && status.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", program)
}
