//go:build linux

package node

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/image"
)

//go:embed coredns.yaml
var coreDNS string

// Requirements are the programs that a cluster needs of this machine beside Go, with the Debian packages that have them;
// it also needs the package containernetworking-plugins, whose programs are not meant to be called by name.
var Requirements = map[string]string{
	"ip": "iproute2", "containerd": "containerd", "ctr": "containerd", "runc": "runc",
	"iptables": "iptables",
}

var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

func validName(name string) bool { return nodeName.MatchString(name) }

// ready says what is missing for a cluster, with the remedy, and gives the folder of the programs of Kubernetes.
func ready(ctx context.Context, o Options) (binaries string, err error) {
	if o.Name != "" && !validName(o.Name) {
		return "", fmt.Errorf("%q cannot be the name of a cluster: take up to 40 lower-case letters, digits and dashes", o.Name)
	}
	if os.Geteuid() != 0 {
		return "", errors.New("a cluster needs root, for namespaces and cgroups of its own: sudo -E env PATH=\"$PATH\" …")
	}
	var packages []string
	for program, pkg := range Requirements {
		if o.ControlPlane && program != "ip" { // no pod, no container
			continue
		}
		if _, err := find(program); err != nil {
			packages = append(packages, pkg)
		}
	}
	if _, err := os.Stat(filepath.Join(pluginFolder(), "bridge")); err != nil && !o.ControlPlane {
		packages = append(packages, "containernetworking-plugins")
	}
	if len(packages) > 0 {
		slices.Sort(packages)
		return "", fmt.Errorf("a cluster needs programs that are not installed. On Debian: apt-get install --no-install-recommends %s",
			strings.Join(slices.Compact(packages), " "))
	}
	for _, archive := range o.Images {
		if _, err := os.Stat(archive); err != nil {
			return "", fmt.Errorf("an image to load: %w", err)
		}
	}
	needed := assets.Node
	if o.ControlPlane {
		needed = assets.ControlPlane
	}
	return assets.Dir(ctx, o.Progress, needed...)
}

// buildKeeper compiles the keeper. It is a program of its own because no other can be run again in the middle: a test's
// binary would run the tests.
func buildKeeper(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", to,
		"remora.dev/remora/test/cluster/node/keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the keeper: %w: %s", err, out)
	}
	return nil
}

// writeImages writes the images of the node's own pods.
func (s *spec) writeImages() error {
	if s.ControlPlane {
		return nil
	}
	var failed error
	for name, reference := range map[string]string{"pause": pauseImage, "coredns": dnsImage} {
		failed = errors.Join(failed, image.Write(s.file(name+".tar"), reference, image.Config{Entrypoint: []string{"/" + name}},
			[]image.File{{Path: "/" + name, Source: s.binary(name)}}))
	}
	return failed
}

// Load brings images into the cluster from archives. A pod that uses one under its full name with imagePullPolicy Never or
// IfNotPresent finds it when Load returns. An image of the same name is replaced; pods that run keep the old one.
func (n *Node) Load(ctx context.Context, archives ...string) error {
	for _, archive := range archives {
		if err := n.ctr(ctx, io.Discard, "--namespace=k8s.io", "images", "import", "--snapshotter="+n.spec.snapshotter(), archive); err != nil {
			return fmt.Errorf("load %s: %w", archive, err)
		}
	}
	// The kubelet's side of containerd hears of a new image a moment later, and then labels it.
	return poll(ctx, "the image", func() error {
		var unknown strings.Builder
		err := n.ctr(ctx, &unknown, "--namespace=k8s.io", "images", "list", "--quiet", `labels."io.cri-containerd.image"!=managed`)
		if err == nil && strings.TrimSpace(unknown.String()) != "" {
			err = errors.New("containerd has not noticed " + strings.TrimSpace(unknown.String()))
		}
		return err
	})
}

// Ctr runs containerd's client in the namespace of Kubernetes and gives what it prints: what happens to containers behind
// the kubelet's back.
func (n *Node) Ctr(ctx context.Context, args ...string) (string, error) {
	var out strings.Builder
	err := n.ctr(ctx, &out, append([]string{"--namespace=k8s.io"}, args...)...)
	return out.String(), err
}

// ctr runs containerd's client from outside, by way of PID 1's view of the files: the socket is hidden from here, and its
// true path might be too long for one.
func (n *Node) ctr(ctx context.Context, out io.Writer, args ...string) error {
	first, err := n.spec.number(initFile)
	if err != nil {
		return err
	}
	program, err := find("ctr")
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd := exec.CommandContext(ctx, program, append([]string{fmt.Sprintf("--address=/proc/%d/root%s", first, containerdSocket)}, args...)...)
	cmd.Stdout, cmd.Stderr = out, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// progress tells how long each step of a start took to be done, counted from its beginning.
type progress struct {
	mu    sync.Mutex
	to    io.Writer
	began time.Time
}

func (p *progress) done(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.to, "%5.1f s  %s\n", time.Since(p.began).Seconds(), what)
}
