// Package integration holds the tests of the whole installation against a real API server: real manifests, real programs.
// Only the kubelet is missing.
package integration

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/controlplane"
	"remora.dev/remora/test/cluster/crds"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/netns"
)

// installed is what the tests of this package share.
var installed *installation.Installation

func TestMain(m *testing.M) {
	binaries, err := assets.Dir(context.Background(), os.Stderr) // outside of the namespace: it may have to download
	if err != nil {
		fail(err)
	}
	netns.Enter(map[string]string{"dashscope.aliyuncs.com": "127.0.0.1", "api.moonshot.cn": "127.0.0.1"})
	os.Exit(run(m, binaries))
}

func run(m *testing.M, binaries string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cp, err := controlplane.Start(ctx, controlplane.Options{Binaries: binaries})
	if err != nil {
		fail(err)
	}
	defer cp.Stop()
	// The corpus has objects of Istio's, which this server then judges by Istio's own schema.
	manifest, err := crds.Manifest(ctx)
	if err == nil {
		var out string
		if out, err = cp.KubectlWith(ctx, manifest, "apply", "--server-side", "-f", "-"); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		cp.Stop()
		fail(err)
	}
	if installed, err = installation.Start(ctx, cp); err != nil {
		cp.Stop()
		fail(err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // those of kubectl are what the tests look at
	return m.Run()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "integration:", err)
	os.Exit(1)
}

var namespaces atomic.Int32

// newNamespace makes a namespace for a test.
func newNamespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("test-%d", namespaces.Add(1))
	kubectl(t, "create", "namespace", name)
	return name
}

// kubectl runs a command that must succeed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := installed.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}
