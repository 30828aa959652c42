//go:build linux

// Package e2e tries the installation as a user has it: the images, config/default applied by kubectl, and pods on a real
// node that get their sidecars from it and reach providers through real Services.
//
// All tests share one node and one installation. TestAnInstallation runs first and leaves one; the others run side by side, each in a namespace of
// its own.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/netns"
	"remora.dev/remora/test/stage"
)

// root is the folder of the module, as seen from here.
const root = "../.."

var (
	cluster *node.Node
	config  *rest.Config // an administrator's
	client  *kubernetes.Clientset
	before  []string // what was in the cluster before it was installed
)

func TestMain(m *testing.M) {
	if _, err := assets.Dir(context.Background(), os.Stderr, assets.Node...); err != nil { // inside, nothing can be downloaded
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	netns.Enter(nil)
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	var archives stage.Archives
	written := make(chan error, 1)
	go func() {
		var err error
		archives, err = stage.WriteImages(ctx, root, dir)
		written <- err
	}()
	cluster, err = node.Start(ctx, node.Options{Progress: os.Stderr})
	if err := errors.Join(err, <-written); err != nil {
		if cluster != nil {
			err = errors.Join(err, cluster.Down(ctx))
		}
		return 0, err
	}
	defer func() {
		if failed := cluster.Down(ctx); err == nil {
			err = failed
		}
	}()
	if err := cluster.Load(ctx, archives.All()...); err != nil {
		return 0, err
	}
	if config, err = clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig()); err != nil {
		return 0, err
	}
	config.QPS = -1                           // no limit of our own
	config.WarningHandler = rest.NoWarnings{} // those of kubectl are what the tests look at
	client = kubernetes.NewForConfigOrDie(config)
	if err := raiseProviders(ctx); err != nil {
		return 0, err
	}
	if before, err = leftovers(ctx); err != nil {
		return 0, err
	}
	if _, err := install(ctx, "--server-side"); err != nil {
		return 0, err
	}
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait for pods more than they compute
		return 0, err
	}
	return m.Run(), nil
}

// kubectl runs a command that must succeed, also while the test is being cleaned up.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cluster.Kubectl(context.WithoutCancel(t.Context()), args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// apply is kubectl apply of a manifest that must be accepted; what it says are the warnings, too.
func apply(t *testing.T, manifest string, args ...string) string {
	t.Helper()
	out, err := cluster.KubectlWith(t.Context(), manifest, append([]string{"apply", "-f", "-"}, args...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// patience is for what takes seconds on a machine that has nothing else to do.
const patience = 5 * time.Minute

// eventually asks until it is answered yes; what is said at last is shown otherwise.
func eventually(t *testing.T, what string, ask func() (said string, yes bool)) {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(patience); ; {
		said, yes := ask()
		if yes {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s\n%s", patience, what, said)
		case <-again.C:
		}
	}
}

// has complains where something does not say each of the words.
func has(t *testing.T, what, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, said)
		}
	}
}
