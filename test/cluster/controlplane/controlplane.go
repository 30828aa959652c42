// Package controlplane runs a real etcd and kube-apiserver as two processes on loopback. Nothing else is needed: no
// container, no right but that to run them. They end with the process that started them, however that ends.
package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/pki"
)

// ServiceRange is where the addresses of Services are taken from. It is on loopback: whoever listens on the address of a
// Service is that Service, and the API server reaches it.
const ServiceRange = "127.96.0.0/16"

// startTime is how long etcd and the API server may each take until they are ready, on a busy machine.
const startTime = 2 * time.Minute

// Options says how a control plane differs from the usual one.
type Options struct {
	// Binaries is the folder with kube-apiserver, etcd and kubectl; the default is that of package assets, which builds
	// them where they are missing.
	Binaries string
	// APIServerArgs are added to the API server's command line and win over what stands there already.
	APIServerArgs []string
}

// ControlPlane is a running etcd with an API server.
type ControlPlane struct {
	// APIServer and Etcd can be killed, frozen and started again at the same addresses.
	APIServer, Etcd *Process

	dir      string
	binaries string
	url      string
	keys     *pki.Authority
	admin    []byte // a kubeconfig
}

// Start gives a control plane that is ready. It is to be stopped with Stop.
func Start(ctx context.Context, o Options) (_ *ControlPlane, err error) {
	if o.Binaries == "" {
		if o.Binaries, err = assets.Dir(ctx, os.Stderr); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "controlplane-")
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{dir: dir, binaries: o.Binaries}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	ports, err := FreePorts(3)
	if err != nil {
		return nil, err
	}
	client, peer, secure := ports[0], ports[1], ports[2]
	c.url = fmt.Sprintf("https://127.0.0.1:%d", secure)
	if c.keys, err = newAuthority(dir); err != nil {
		return nil, err
	}
	if c.admin, err = c.kubeconfigFor("admin", "system:masters"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.Kubeconfig(), c.admin, 0o600); err != nil {
		return nil, err
	}

	etcd := fmt.Sprintf("http://127.0.0.1:%d", client)
	c.Etcd = NewProcess(filepath.Join(o.Binaries, "etcd"), filepath.Join(dir, "etcd.log"), Probe(etcd+"/health"),
		"--data-dir="+filepath.Join(dir, "etcd"), "--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		fmt.Sprintf("--listen-peer-urls=http://127.0.0.1:%d", peer), "--unsafe-no-fsync", "--log-level=warn",
		"--quota-backend-bytes="+strconv.Itoa(4<<30))
	file := func(name string) string { return filepath.Join(dir, name) }
	c.APIServer = NewProcess(filepath.Join(o.Binaries, "kube-apiserver"), file("kube-apiserver.log"), c.ready, append([]string{
		"--etcd-servers=" + etcd, "--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(secure),
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=" + ServiceRange,
		"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"), "--client-ca-file=" + file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-key-file=" + file("sa.pub"),
		"--service-account-signing-key-file=" + file("sa.key"), "--authorization-mode=RBAC", "--allow-privileged=true",
		"--shutdown-delay-duration=0s",
	}, o.APIServerArgs...)...)
	if err := c.Etcd.Start(ctx); err != nil {
		return nil, err
	}
	return c, c.APIServer.Start(ctx)
}

// Stop ends both processes and removes what they have written.
func (c *ControlPlane) Stop() {
	for _, p := range []*Process{c.APIServer, c.Etcd} {
		if p != nil {
			p.Kill()
		}
	}
	_ = os.RemoveAll(c.dir) // a temporary folder
}

// Kubeconfig is the file by which an administrator reaches the API server.
func (c *ControlPlane) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// URL is where the API server listens.
func (c *ControlPlane) URL() string { return c.url }

// CA is the authority that has signed the API server's certificate, as PEM.
func (c *ControlPlane) CA() []byte { return c.keys.Certificate }

// Folder is a private folder for files of the test; it ends with the control plane.
func (c *ControlPlane) Folder() string { return c.dir }

// Config is that of an administrator, without a limit of requests.
func (c *ControlPlane) Config() *rest.Config {
	config, err := clientcmd.RESTConfigFromKubeConfig(c.admin)
	if err != nil {
		panic(err) // it is ours
	}
	config.QPS = -1
	return config
}

// UserConfig is that of a user with the groups, who has the rights that RBAC gives to them.
func (c *ControlPlane) UserConfig(user string, groups ...string) (*rest.Config, error) {
	text, err := c.kubeconfigFor(user, groups...)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return config, nil
}

// Kubectl runs kubectl as an administrator and gives all that it prints.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.KubectlWith(ctx, "", args...)
}

// KubectlWith is Kubectl with something to read on its standard input.
func (c *ControlPlane) KubectlWith(ctx context.Context, stdin string, args ...string) (string, error) {
	return c.KubectlAs(ctx, c.Kubeconfig(), stdin, args...)
}

// KubectlAs is KubectlWith by another kubeconfig, such as one of UserKubeconfig.
func (c *ControlPlane) KubectlAs(ctx context.Context, kubeconfig, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.binaries, "kubectl"), append([]string{"--kubeconfig=" + kubeconfig, "--cache-dir=" + filepath.Join(c.dir, "kubectl")}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return string(out), err
}

func (c *ControlPlane) ready(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.Config())
	if err != nil {
		return err
	}
	return ask(ctx, client, c.url+"/readyz")
}

// Probe asks whether url answers 200.
func Probe(url string) func(context.Context) error {
	return func(ctx context.Context) error { return ask(ctx, http.DefaultClient, url) }
}

func ask(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body) // only for the message
		return fmt.Errorf("%s: %s %s", url, resp.Status, body.String())
	}
	return nil
}

// FreePorts gives ports that nobody has now.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it listens for an instant only
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		address, ok := ln.Addr().(*net.TCPAddr)
		if !ok {
			return nil, errors.New("not a TCP address")
		}
		ports = append(ports, address.Port)
	}
	return ports, nil
}
