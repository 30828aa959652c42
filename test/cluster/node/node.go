//go:build linux

// Package node runs a whole Kubernetes, of one node, as processes of this machine: etcd, API server, controller manager,
// scheduler, containerd, kubelet, kube-proxy and CoreDNS, with real pods. They live in namespaces of their own; on the
// machine there is only a veth pair and a cgroup, so that clusters run side by side, and each ends as a whole.
//
// It needs root, Linux, and the programs that Requirements lists. Nothing is downloaded: a cluster has no way out, and its
// images are loaded from archives.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Options say how a cluster differs from the usual one: a node with DNS, which ends with the process that starts it.
type Options struct {
	// Name is the cluster's and its node's name, and must be free. Default: one that no other cluster has.
	Name string
	// ControlPlane leaves out all but etcd and the API server: no pod ever runs. It is ready in half the time.
	ControlPlane bool
	// Images are archives (docker-archive, as package image writes them, or OCI) that are there before the first pod.
	Images []string
	// Detached lets the cluster outlive this process. It ends with Down, also of another process (see Find).
	Detached bool
	// Progress is told what is done, with the time it took. Default: nobody.
	Progress io.Writer
}

// Node is a cluster that runs.
type Node struct {
	spec *spec
	// lifeline is the writing end of a pipe that is the cluster's life: a bare number, because a file would be closed when
	// nobody holds the Node any more. -1: none, or closed.
	lifeline int
}

// startTime is long enough for a busy machine. The programs are built before it starts to count.
const startTime = 4 * time.Minute

// Start gives a cluster that is ready: its API server answers, its images are there, its DNS runs, and a pod can be made
// in the namespace default. Call Down at its end; should the process end without, however it does, the cluster ends too
// (unless it is detached). The error of a failed start has the logs' last lines, and leaves nothing behind.
func Start(ctx context.Context, o Options) (*Node, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	binaries, err := ready(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &progress{to: o.Progress, began: time.Now()}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s, held, err := claim(o, binaries)
	if err != nil {
		return nil, err
	}
	defer held.Close() // the keeper has it by then
	n := &Node{spec: s, lifeline: -1}
	if err := n.start(ctx, o, held, p); err != nil {
		if caller.Err() != nil { // the caller knows why
			err = fmt.Errorf("the start of cluster %s was given up: %w", s.Name, context.Cause(caller))
		} else {
			err = fmt.Errorf("start a cluster: %w%s", err, n.explanation(context.WithoutCancel(ctx)))
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		return nil, errors.Join(err, held.Close(), n.Down(ctx))
	}
	p.done("ready")
	return n, nil
}

func (n *Node) start(ctx context.Context, o Options, held *os.File, p *progress) error {
	s := n.spec
	keeper, images := make(chan error, 1), make(chan error, 1)
	go func() { keeper <- buildKeeper(ctx, s.file("keeper")) }()
	go func() { images <- s.writeImages() }()
	if err := errors.Join(s.prepare(), <-keeper, <-images); err != nil {
		return err
	}
	p.done("keys and configuration written")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := n.runKeeper(held, cancel); err != nil {
		return err
	}
	steps := []func(context.Context, Options, *progress) error{n.awaitAPI}
	if !s.ControlPlane {
		steps = append(steps, n.awaitRuntime)
	}
	results := make(chan error, len(steps))
	for _, step := range steps {
		go func() { results <- step(ctx, o, p) }()
	}
	for range steps {
		if err := <-results; err != nil {
			return err
		}
	}
	if s.ControlPlane {
		return nil
	}
	return n.awaitPods(ctx, p)
}

func (n *Node) awaitAPI(ctx context.Context, _ Options, p *progress) error {
	if err := awaitAPI(ctx, n.spec); err != nil {
		return err
	}
	p.done("API server ready")
	if n.spec.ControlPlane {
		return nil
	}
	out, err := n.KubectlWith(ctx, coreDNS, "create", "--validate=false", "-f", "-")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (n *Node) awaitRuntime(ctx context.Context, o Options, p *progress) error {
	if err := poll(ctx, "containerd", func() error { return n.ctr(ctx, io.Discard, "version") }); err != nil {
		return err
	}
	own := []string{n.spec.file("pause.tar"), n.spec.file("coredns.tar")}
	if err := n.Load(ctx, append(own, o.Images...)...); err != nil {
		return err
	}
	p.done("images loaded")
	return nil
}

func (n *Node) awaitPods(ctx context.Context, p *progress) error {
	for _, step := range []struct{ what, args string }{
		{"node ready", "--for=condition=Ready node/" + n.spec.Name},
		{"DNS ready", "--for=condition=Available deployment/coredns --namespace=kube-system"},
		{"", "--for=create serviceaccount/default --namespace=default"}, // without it, no pod is let in
	} {
		// The kubelet may not have made itself known yet.
		args := strings.Fields(step.args)
		for _, args := range [][]string{append([]string{"wait", "--for=create"}, args[1:]...), append([]string{"wait"}, args...)} {
			if out, err := n.Kubectl(ctx, append(args, "--timeout="+startTime.String())...); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		if step.what != "" {
			p.done(step.what)
		}
	}
	return nil
}

// runKeeper starts the keeper. When it ends, the start is cancelled.
func (n *Node) runKeeper(held *os.File, cancel context.CancelCauseFunc) error {
	s := n.spec
	log, err := os.Create(s.log("keeper"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.Background(), s.file("keeper"), "keep", s.Folder)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{held}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is not for the keeper: it cleans up after us
	if !s.Detached {
		pipe := make([]int, 2)
		if err := syscall.Pipe2(pipe, syscall.O_CLOEXEC); err != nil {
			return err
		}
		remote := os.NewFile(uintptr(pipe[0]), "lifeline")
		defer remote.Close()
		n.lifeline = pipe[1]
		cmd.ExtraFiles = append(cmd.ExtraFiles, remote)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		err := cmd.Wait()
		cancel(fmt.Errorf("the cluster has ended (%w)", errors.Join(err, errors.New("see its logs"))))
	}()
	return nil
}

// Name is the cluster's name, and the node's.
func (n *Node) Name() string { return n.spec.Name }

// Kubeconfig is the file by which an administrator reaches the API server, from this machine.
func (n *Node) Kubeconfig() string { return n.spec.file("kubeconfig") }

// URL is where the API server listens.
func (n *Node) URL() string { return n.spec.url() }

// Logs is the folder with one log for each component, such as kubelet.log.
func (n *Node) Logs() string { return n.spec.file("log") }

// HostAddress is the address of this machine at which pods reach what listens on it here.
func (n *Node) HostAddress() string { return n.spec.hostAddress() }

// Address is the node's: what it listens on, and the ports of its Services, are reached there from this machine.
func (n *Node) Address() string { return n.spec.nodeAddress() }

// Binary is the path of one of the programs of Kubernetes, such as kubectl.
func (n *Node) Binary(name string) string { return n.spec.binary(name) }

// Kubectl runs kubectl as an administrator and gives all that it prints.
func (n *Node) Kubectl(ctx context.Context, args ...string) (string, error) {
	return n.KubectlWith(ctx, "", args...)
}

// KubectlWith is Kubectl with something to read on its standard input.
func (n *Node) KubectlWith(ctx context.Context, stdin string, args ...string) (string, error) {
	args = append([]string{"--kubeconfig=" + n.Kubeconfig(), "--cache-dir=" + n.spec.file("kubectl")}, args...)
	cmd := exec.CommandContext(ctx, n.spec.binary("kubectl"), args...)
	cmd.Env = append(os.Environ(), "NO_PROXY=*")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w", strings.Join(args[2:], " "), err)
	}
	if ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return string(out), err
}
