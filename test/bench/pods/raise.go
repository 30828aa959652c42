//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/image"
	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/stage"
)

// The namespaces: of pods that get a sidecar, of those that do not, of those that the guards do not look at either, and of the
// provider.
const (
	withSidecars = "bench-injected"
	without      = "bench-plain"
	unguarded    = "bench-unguarded"
	abroad       = "bench-abroad"
)

// callerImage holds the program of the folder caller.
const callerImage = "test.invalid/caller:1"

// host is the provider's name, which the cluster's DNS knows anyway.
const host = "anybody." + abroad

// raise gives a node with the installation and the provider, and nothing else to do.
func (b *bench) raise(ctx context.Context, dir string) error {
	written := make(chan error, 1)
	go func() {
		var err error
		b.archives, err = stage.WriteImages(ctx, b.root, dir)
		written <- errors.Join(err, b.writeCaller(ctx, dir))
	}()
	var err error
	b.cluster, err = node.Start(ctx, node.Options{Progress: b.progress})
	if err := errors.Join(err, <-written); err != nil {
		return err
	}
	weighed := make(chan error, 1)
	go func() { weighed <- b.sizes() }() // before anything is measured
	if err := b.cluster.Load(ctx, append(b.archives.All(), filepath.Join(dir, "caller.tar"))...); err != nil {
		return err
	}
	if err := b.connect(); err != nil {
		return err
	}
	configuration, err := b.configuration()
	if err != nil {
		return err
	}
	system := "--namespace=" + v1beta1.InstallationNamespace
	for _, step := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"apply", "--server-side", "-k", filepath.Join(b.root, "config/default")}},
		{"", []string{system, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=3m"}},
		{configuration, []string{"apply", "-f", "-"}},
		{"", []string{"--namespace=" + abroad, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=3m"}},
		{"", []string{"--namespace=" + withSidecars, "wait", "--for=create", "secret/" + v1beta1.AccessSecret, "--timeout=1m"}},
		{"", []string{"--namespace=" + without, "wait", "--for=create", "serviceaccount/default", "--timeout=1m"}},
		{"", []string{"--namespace=" + unguarded, "wait", "--for=create", "serviceaccount/default", "--timeout=1m"}},
	} {
		if out, err := b.cluster.KubectlWith(ctx, step.stdin, step.args...); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	return <-weighed
}

func (b *bench) down(ctx context.Context) error {
	if b.cluster == nil {
		return nil
	}
	return b.cluster.Down(context.WithoutCancel(ctx))
}

func (b *bench) writeCaller(ctx context.Context, dir string) error {
	program := filepath.Join(dir, "caller")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./test/bench/pods/caller")
	build.Dir, build.Env = b.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return image.Write(program+".tar", callerImage, image.Config{Entrypoint: []string{"/caller"}, User: "1000:1000"},
		[]image.File{{Path: "/caller", Mode: 0o755, Source: program}})
}

// configuration is YAML of the namespaces, the provider, and what sidecars know of it: its model depends on the name of the
// route's rule.
func (b *bench) configuration() (string, error) {
	authority, err := pki.NewAuthority("provider of the benchmark")
	if err != nil {
		return "", err
	}
	provider, err := stage.Provider{Namespace: abroad, Name: "anybody", Keys: map[string]string{host: ""}}.Manifest(authority)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {%s: %s}}\n---\n", withSidecars, v1beta1.InjectLabel, v1beta1.InjectEnabled)
	for _, name := range []string{without, unguarded, abroad} {
		text += fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", name)
	}
	text += fmt.Sprintf(`apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: bench, namespace: %[1]s}
spec:
  host: %[2]s
  tls: {caBundle: %[3]s}
  configs:
    defaultConfig: {openAIConfig: {model: none}}
    routeSpecificConfigs:
      %[4]s: {openAIConfig: {model: %[4]s}}
      %[5]s: {openAIConfig: {model: %[5]s}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: %[6]s, namespace: %[1]s}
spec:
  host: %[2]s
  rules: [{name: %[4]s, backendRefs: [{providerHost: %[2]s}]}]
---
`, withSidecars, host, base64.StdEncoding.EncodeToString(authority.Certificate), models[0], models[1], route)
	return text + provider, nil
}
