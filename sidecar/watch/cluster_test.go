package watch

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/cluster/controlplane"
)

// theCluster is started by the first test that asks for it, and has our CRDs.
var theCluster = sync.OnceValues(func() (*controlplane.ControlPlane, error) {
	cp, err := controlplane.Start(context.Background(), controlplane.Options{
		APIServerArgs: []string{"--etcd-compaction-interval=1s"},
	})
	if err != nil {
		return nil, err
	}
	started = cp
	crds := []string{"-f", "../../config/crd/istio.alibabacloud.com_llmproviders.yaml", "-f", "../../config/crd/istio.alibabacloud.com_llmroutes.yaml"}
	for _, args := range [][]string{{"apply", "--server-side"}, {"wait", "--for=condition=Established", "--timeout=30s"}} {
		if out, err := cp.Kubectl(context.Background(), append(args, crds...)...); err != nil {
			return nil, fmt.Errorf("%s: %w", out, err)
		}
	}
	return cp, nil
})

var started *controlplane.ControlPlane

func TestMain(m *testing.M) {
	code := m.Run()
	if started != nil {
		started.Stop()
	}
	os.Exit(code)
}

// namespace is one in the cluster, with what the sidecar's service account has there and nothing else.
type namespace struct {
	t    *testing.T
	cp   *controlplane.ControlPlane
	name string
}

// rights are those that DESIGN.md gives to a sidecar.
const (
	rightOfObjects = `{apiGroups: [istio.alibabacloud.com], resources: [llmproviders, llmroutes], verbs: [list, watch]}`
	rightOfSecret  = `{apiGroups: [""], resources: [secrets], resourceNames: [remora-sidecar-keys], verbs: [list, watch]}`
)

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	cp, err := theCluster()
	if err != nil {
		t.Fatal(err)
	}
	n := &namespace{t: t, cp: cp, name: strings.ToLower(fmt.Sprintf("%.40s-%x", t.Name(), time.Now().UnixNano()&0xffffff))}
	n.kubectl("create", "namespace", n.name)
	n.kubectl("create", "serviceaccount", "remora-sidecar", "-n", n.name)
	n.allow(rightOfObjects, rightOfSecret)
	n.kubectl("create", "rolebinding", "remora-sidecar", "--role=remora-sidecar", "--serviceaccount="+n.name+":remora-sidecar", "-n", n.name)
	t.Cleanup(func() { n.kubectl("delete", "namespace", n.name, "--wait=false") })
	return n
}

func (n *namespace) kubectl(args ...string) string {
	n.t.Helper()
	out, err := n.cp.Kubectl(context.Background(), args...)
	if err != nil {
		n.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (n *namespace) apply(yaml string) {
	n.t.Helper()
	out, err := n.cp.KubectlWith(context.Background(), yaml, "apply", "-n", n.name, "-f", "-")
	if err != nil {
		n.t.Fatalf("kubectl apply: %v\n%s\n%s", err, out, yaml)
	}
}

// allow gives the sidecar these rights and no others.
func (n *namespace) allow(rules ...string) {
	n.t.Helper()
	n.apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: remora-sidecar}\nrules:\n- " + strings.Join(rules, "\n- ") + "\n")
}

// config is that of the sidecar's service account, with a token of an hour.
func (n *namespace) config() *rest.Config {
	n.t.Helper()
	token := strings.TrimSpace(n.kubectl("create", "token", "remora-sidecar", "-n", n.name))
	file, err := n.cp.TokenKubeconfig(n.name, token)
	if err != nil {
		n.t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		n.t.Fatal(err)
	}
	return config
}

// api is an API that follows the namespace as the sidecar's service account.
func (n *namespace) api() *API {
	n.t.Helper()
	return &API{Config: n.config(), Namespace: n.name, KeysSecret: v1beta1.KeysSecret}
}

// watching is a follower whose configuration is in a namespace.
type watching struct {
	*follower
	stop func()
}

// watch follows the API server until stop, or the end of the test.
func watch(t *testing.T, a *API) *watching {
	t.Helper()
	f := newFollower(t)
	a.Store = f.store
	a.Log = funcr.New(func(_, args string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.log.WriteString(args + "\n")
		f.lines <- args
	}, funcr.Options{})
	f.must(a.Load())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	w := &watching{f, func() {
		cancel()
		<-done
	}}
	t.Cleanup(w.stop)
	return w
}

func (w *watching) awaitReady() *snapshot.Snapshot {
	w.t.Helper()
	return w.await("a configuration", func(s *snapshot.Snapshot) bool { return s.Ready })
}

// gate is a way to the API server that can be cut, or closed for a while.
type gate struct {
	listener net.Listener
	to       string
	closed   sync.Mutex // held while nobody may pass

	mu    sync.Mutex
	conns []net.Conn
}

// newGate makes a gate and sends config through it.
func newGate(t *testing.T, config *rest.Config) *gate {
	t.Helper()
	u, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, to: u.Host}
	config.Host = "https://" + l.Addr().String()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.pass(c)
		}
	}()
	return g
}

func (g *gate) pass(in net.Conn) {
	g.closed.Lock()
	g.closed.Unlock() //nolint:staticcheck // it only waits until the gate is open
	out, err := net.Dial("tcp", g.to)
	if err != nil {
		in.Close()
		return
	}
	g.mu.Lock()
	g.conns = append(g.conns, in, out)
	g.mu.Unlock()
	go func() {
		io.Copy(out, in)
		out.Close()
	}()
	io.Copy(in, out)
	in.Close()
}

// cut ends all connections.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}
