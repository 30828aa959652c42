//go:build linux

package node_test

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/image"
	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/netns"
)

const tools = "test.invalid/tools:1"

//go:embed workload_test.yaml
var workload string

var shared *node.Node

func TestMain(m *testing.M) {
	if _, err := assets.Dir(context.Background(), os.Stderr, assets.Node...); err != nil { // inside, nothing can be downloaded
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	netns.Enter(nil) // the machine's network is not even seen
	if os.Getenv(errand) != "" {
		runErrand()
		return
	}
	os.Exit(func() (code int) {
		dir, err := os.MkdirTemp("", "node-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		ctx := context.Background()
		archive := filepath.Join(dir, "tools.tar")
		if err := writeTools(ctx, dir, archive); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if shared, err = node.Start(ctx, node.Options{Images: []string{archive}, Progress: os.Stderr}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			if err := shared.Down(ctx); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}()
		return m.Run()
	}())
}

// writeTools writes an image with probe, iptables and a shell.
func writeTools(ctx context.Context, dir, archive string) error {
	probe := filepath.Join(dir, "probe")
	build := exec.CommandContext(ctx, "go", "build", "-o", probe, "remora.dev/remora/test/cluster/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	files, err := image.Iptables(ctx)
	if err != nil {
		return err
	}
	shell, err := image.Program(ctx, "/bin/sh")
	if err != nil {
		return err
	}
	files = append(append(files, shell...), image.File{Path: "/probe", Source: probe})
	return image.Write(archive, tools, image.Config{}, files)
}

func TestAPodRedirectsItsConnectionsToItsSidecarWithEitherBackEnd(t *testing.T) {
	t.Parallel()
	for _, backEnd := range []string{"nft", "legacy"} {
		t.Run(backEnd, func(t *testing.T) {
			t.Parallel()
			deploy(t, backEnd)
			if rules := kubectl(t, "logs", "deployment/"+backEnd, "-c", "redirect"); !strings.Contains(rules, "--to-ports 15999") {
				t.Errorf("the init container has not set its rules up:\n%s", rules)
			}
			got := kubectl(t, "exec", "deployment/"+backEnd, "-c", "app", "--", "/probe", "dial", "203.0.113.7:9999")
			if want := "203.0.113.7:9999\n"; got != want {
				t.Errorf("the sidecar saw %q as the app's destination; want %q", got, want)
			}
			started := kubectl(t, "get", "pods", "-l", "app="+backEnd, "-o",
				`jsonpath={.items[0].status.initContainerStatuses[?(@.name=="sidecar")].started}`)
			if started != "true" {
				t.Errorf("the sidecar of the running pod is started: %q; want true", started)
			}
		})
	}
}

func TestAServiceIsReachedByItsName(t *testing.T) {
	t.Parallel()
	deploy(t, "nft")
	for _, name := range []string{"nft", "nft.default.svc.cluster.local"} {
		// The pod reaches itself through the Service: out to the bridge, and back in.
		got := kubectl(t, "exec", "deployment/nft", "-c", "app", "--", "/probe", "get", "http://"+name)
		if !strings.HasPrefix(got, "hello from nft-") {
			t.Errorf("http://%s answers %q", name, got)
		}
	}
	out, err := shared.Kubectl(t.Context(), "exec", "deployment/nft", "-c", "app", "--", "/probe", "get", "http://api.openai.com")
	if err == nil {
		t.Errorf("the cluster reaches the world outside: %s", out)
	}
}

func TestAnImageThatIsLoadedLaterReplacesTheOneOfItsName(t *testing.T) {
	t.Parallel()
	shell, err := image.Program(t.Context(), "/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"first", "second"} {
		archive := filepath.Join(t.TempDir(), "i.tar")
		config := image.Config{Entrypoint: []string{"/bin/sh", "-c", "echo this is the " + version}}
		if err := image.Write(archive, "test.invalid/late:1", config, shell); err != nil {
			t.Fatal(err)
		}
		if err := shared.Load(t.Context(), archive); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "run", version, "--image=test.invalid/late:1", "--image-pull-policy=Never", "--restart=Never")
		kubectl(t, "wait", "pod/"+version, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
		if got, want := kubectl(t, "logs", version), "this is the "+version+"\n"; got != want {
			t.Errorf("the pod says %q; want %q", got, want)
		}
	}
}

func TestAFailedStartSaysWhichPartFailedAndLeavesNothing(t *testing.T) {
	binaries := t.TempDir()
	for name, script := range map[string]string{
		"etcd": "echo my disk is gone; exit 3", "kube-apiserver": "exec sleep 60", "kubectl": "exit 1",
	} {
		if err := os.WriteFile(filepath.Join(binaries, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBEBUILDER_ASSETS", binaries)
	_, err := node.Start(t.Context(), node.Options{Name: "broken", ControlPlane: true})
	if err == nil {
		t.Fatal("a cluster without etcd has started")
	}
	for _, want := range []string{"etcd has ended with exit code 3", "my disk is gone"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if _, err := node.Find("broken"); !errors.Is(err, node.ErrNone) {
		t.Errorf("it is still there: %v", err)
	}
	if left := remains(t, "broken"); left != "" {
		t.Errorf("left on the machine: %s", left)
	}
}

func deploy(t *testing.T, backEnd string) {
	t.Helper()
	manifest := strings.ReplaceAll(workload, "BACKEND", backEnd)
	if out, err := shared.KubectlWith(t.Context(), manifest, "apply", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := shared.Kubectl(t.Context(), "wait", "deployment/"+backEnd, "--for=condition=Available", "--timeout=60s"); err != nil {
		pods, _ := shared.Kubectl(t.Context(), "describe", "pods", "-l", "app="+backEnd)
		t.Fatalf("%v: %s\n%s", err, out, pods)
	}
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := shared.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return out
}

// remains are the cgroups of a cluster.
func remains(t *testing.T, name string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && entry.Name() == "remora-"+name {
			found = append(found, path)
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of somebody else, just gone
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(found, " ")
}
