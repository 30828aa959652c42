//go:build linux

// Package e2e tries the installation as a user has it: the images, config/default applied by kubectl, and pods on a real
// node that reach each other through real Services.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/netns"
)

var (
	cluster *node.Node
	config  *rest.Config // an administrator's
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
	images, err := writeImages(ctx, dir)
	if err != nil {
		return 0, err
	}
	if cluster, err = node.Start(ctx, node.Options{Images: images, Progress: os.Stderr}); err != nil {
		return 0, err
	}
	defer func() {
		if failed := cluster.Down(ctx); err == nil {
			err = failed
		}
	}()
	if config, err = clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig()); err != nil {
		return 0, err
	}
	config.QPS = -1                           // no limit of our own
	config.WarningHandler = rest.NoWarnings{} // those of kubectl are what the tests look at
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
const patience = 2 * time.Minute

// eventually asks until it is answered yes; what is said at last is shown otherwise.
func eventually(t *testing.T, what string, ask func() (said string, yes bool)) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
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

// namespace makes one whose pods must meet the restricted standard.
func namespace(t *testing.T, name string) string {
	t.Helper()
	kubectl(t, "create", "namespace", name)
	kubectl(t, "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(kubectl(t, "-n", name, "get", "pods,llmproviders,llmroutes,events"))
		}
	})
	return name
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
