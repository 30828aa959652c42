package assets_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"remora.dev/remora/test/cluster/assets"
)

func TestTheProgramsAreBuiltOnceHoweverManyAskForThem(t *testing.T) {
	checkout(t)
	var wait sync.WaitGroup
	dirs, said := make([]string, 4), make([]bytes.Buffer, 4)
	for i := range dirs {
		wait.Go(func() {
			var err error
			if dirs[i], err = assets.Dir(t.Context(), &said[i]); err != nil {
				t.Error(err)
			}
		})
	}
	if wait.Wait(); t.Failed() {
		return
	}
	builds := 0
	for i := range dirs {
		builds += strings.Count(said[i].String(), "built in")
		if dirs[i] != dirs[0] {
			t.Errorf("one caller was given %s, another %s", dirs[0], dirs[i])
		}
	}
	if builds != 1 {
		t.Errorf("%d builds for callers at the same time", builds)
	}
	for _, name := range assets.Node {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dirs[0], name)).CombinedOutput()
		if want := "I am " + name; err != nil || string(out) != want {
			t.Errorf("%s: %q, %v; want %q", name, out, err, want)
		}
	}
}

func TestAWarmCacheSaysNothingAndBuildsNothing(t *testing.T) {
	checkout(t)
	first := dir(t)
	t.Setenv("GOCACHE", t.TempDir()) // a build would have to start from nothing, and could not download
	t.Setenv("GOPROXY", "off")
	t.Chdir("sidecar") // from any package
	var said bytes.Buffer
	second, err := assets.Dir(t.Context(), &said, assets.Node...)
	if err != nil || second != first || said.Len() != 0 {
		t.Errorf("the second call gave %s, %v and said %q; want %s in silence", second, err, said.String(), first)
	}
}

func TestAChangeOfTheSourcesIsAnotherBuildAndOnlyTheLastTwoStay(t *testing.T) {
	main := filepath.Join(checkout(t), "kube", "main.go")
	var dirs []string
	for _, addition := range []string{"", "// changed\n", "// again\n"} {
		f, err := os.OpenFile(main, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(addition)
		f.Close()
		dirs = append(dirs, dir(t))
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(dirs[0]), "*", "kube"))
	if err != nil || len(left) != 2 {
		t.Errorf("of three builds %v are left (%v); want two", left, err)
	}
	for _, dir := range dirs[1:] {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("a recent build is gone: %v", err)
		}
	}
}

func TestAFailedBuildShowsWhatTheCompilerSaidAndLeavesNothing(t *testing.T) {
	module := checkout(t)
	write(t, filepath.Join(module, "pause", "main.go"), "package main\nfunc main() { nonsense() }\n")
	_, err := assets.Dir(t.Context(), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "undefined: nonsense") || !strings.Contains(err.Error(), "Remedy: ") {
		t.Errorf("the error is %v; want the compiler's words and a remedy", err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "remora", "kubernetes", "*-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAFolderOfTheUsersOwnIsTakenAsItIsIfNothingIsMissingThere(t *testing.T) {
	own := t.TempDir()
	t.Setenv(assets.Variable, own)
	write(t, filepath.Join(own, "etcd"), "not a program: it may not be executed")
	_, err := assets.Dir(t.Context(), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), own) || !strings.Contains(err.Error(), "etcd, kube-apiserver, kubectl") {
		t.Errorf("the error is %v; want the folder and all that is missing in it", err)
	}
	for _, name := range assets.ControlPlane {
		write(t, filepath.Join(own, name), "#!/bin/sh\n")
		if err := os.Chmod(filepath.Join(own, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := dir(t); got != own {
		t.Errorf("taken: %s, want %s", got, own)
	}
	if _, err := assets.Dir(t.Context(), &bytes.Buffer{}, assets.Node...); err == nil || strings.Contains(err.Error(), "etcd") {
		t.Errorf("a folder without kubelet, asked for all: %v", err)
	}
}

func dir(t *testing.T) string {
	t.Helper()
	dir, err := assets.Dir(t.Context(), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkout makes a checkout whose Kubernetes is small, goes there, and gives the folder of its module. Cache and
// environment are the test's own.
func checkout(t *testing.T) string {
	t.Helper()
	goCache, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(goCache)))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv(assets.Variable, "")
	root := t.TempDir()
	module := filepath.Join(root, "test", "cluster", "kubernetes")
	write(t, filepath.Join(module, "go.mod"), "module small\n\ngo 1.26\n\nrequire k8s.io/kubernetes v1.2.3\n\nreplace k8s.io/kubernetes => ./none\n")
	write(t, filepath.Join(module, "none", "go.mod"), "module k8s.io/kubernetes\n")
	for _, name := range []string{"kube", "coredns", "pause"} {
		write(t, filepath.Join(module, name, "main.go"), `package main

import (
	"os"
	"path/filepath"
)

func main() { os.Stdout.WriteString("I am " + filepath.Base(os.Args[0])) }
`)
	}
	write(t, filepath.Join(root, "sidecar", "main.go"), "package main\n")
	t.Chdir(root)
	return module
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
