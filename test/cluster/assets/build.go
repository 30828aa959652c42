package assets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// links are the names by which the program kube is one part of Kubernetes or another.
var links = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}

// A build is one set of sources under one set of flags.
type build struct {
	source string   // the module's folder
	flags  []string // of go build
	key    string
}

// plan reads the sources and names the build: the same name, the same programs.
func plan(ctx context.Context, source string) (*build, error) {
	version, err := kubernetesVersion(filepath.Join(source, "go.mod"))
	if err != nil {
		return nil, err
	}
	// Each flag that reaches the compiler is part of the key of Go's own build cache: a change compiles all of it again.
	b := &build{source: source, flags: []string{"-buildvcs=false", "-trimpath", "-ldflags=" + linkerFlags(version)}}
	cmd := b.command(ctx, "env", "-json", "GOVERSION", "GOOS", "GOARCH", "GOAMD64", "GOEXPERIMENT")
	compiler, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w: %s", err, stderr(err))
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%q\n", compiler, b.flags)
	err = filepath.WalkDir(source, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n", relative, len(content))
		_, err = sum.Write(content)
		return err
	})
	b.key = fmt.Sprintf("%.16x", sum.Sum(nil))[:16]
	return b, err
}

func kubernetesVersion(goMod string) (string, error) {
	content, err := os.ReadFile(goMod)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(strings.TrimPrefix(line, "require ")); len(fields) >= 2 && fields[0] == "k8s.io/kubernetes" {
			return fields[1], nil
		}
	}
	return "", errors.New(goMod + " does not require k8s.io/kubernetes")
}

// linkerFlags make the programs say which version they are; without them the API server serves v0.0.0.
func linkerFlags(version string) string {
	numbers := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	flags := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, set := range [][2]string{
			{"gitVersion", version}, {"gitCommit", version}, {"gitTreeState", "clean"},
			{"gitMajor", numbers[0]}, {"gitMinor", numbers[1]},
		} {
			flags += fmt.Sprintf(" -X %s.%s=%s", pkg, set[0], set[1])
		}
	}
	return flags
}

// command is the go command in the module, of which the environment changes nothing that the key does not cover.
func (b *build) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	return cmd
}

// run builds into dir and tells a person how far it is.
func (b *build) run(ctx context.Context, progress io.Writer, dir string) error {
	report := newReport(progress)
	defer report.stop()
	fmt.Fprintf(progress, "Kubernetes: building etcd, API server, kubelet and the rest from Go modules. "+
		"Once, the first time about 9 minutes on two cores; kept in %s\n", filepath.Dir(dir))
	stale, err := b.stale(ctx, report)
	if err != nil {
		return err
	}
	report.stage("compiled", "packages", stale)
	args := append([]string{"build", "-v", "-o", dir + string(filepath.Separator)}, b.flags...)
	if err := b.watched(ctx, append(args, "./..."), io.Discard, func(line string) bool {
		// -v prints an import path for each package that it compiles, the programs themselves last.
		if strings.ContainsAny(line, " \t:") {
			return false
		}
		report.step()
		return true
	}); err != nil {
		return err
	}
	for _, name := range links {
		if err := os.Symlink("kube", filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	report.done()
	return nil
}

// stale counts the packages that Go's build cache does not have. To know them, Go downloads the modules.
func (b *build) stale(ctx context.Context, report *report) (int, error) {
	report.stage("downloaded", "modules", 0)
	args := append([]string{"list", "-deps", "-json=Stale"}, b.flags...)
	var out bytes.Buffer
	err := b.watched(ctx, append(args, "./..."), &out, func(line string) bool {
		if !strings.HasPrefix(line, "go: downloading ") {
			return false
		}
		report.step()
		return true
	})
	if err != nil {
		return 0, err
	}
	count := 0
	for packages := json.NewDecoder(&out); ; {
		var p struct{ Stale bool }
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			return count, nil
		} else if err != nil {
			return 0, fmt.Errorf("go list: %w", err)
		}
		if p.Stale {
			count++
		}
	}
}

// watched runs the go command. Lines of its standard error that expected does not take are the explanation if it fails.
func (b *build) watched(ctx context.Context, args []string, out io.Writer, expected func(string) bool) error {
	cmd := b.command(ctx, args...)
	var said strings.Builder
	lines := &lineWriter{each: func(line string) {
		if !expected(line) && said.Len() < 8000 {
			said.WriteString(line + "\n")
		}
	}}
	cmd.Stdout, cmd.Stderr = out, lines
	// A group of its own, so that the compilers it started end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("building Kubernetes was interrupted (what is compiled is kept: the next run goes on from there): %w", ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s%s", args[0], b.source, err, said.String(), remedy(said.String()))
	}
	return nil
}

// remedy is what a person can do about what the go command said.
func remedy(said string) string {
	for _, known := range []struct{ sign, remedy string }{
		{"no space left on device", "The disk is full: the build takes about 6 GB in Go's caches (go env GOCACHE GOMODCACHE) and 220 MB beside. " +
			"`go clean -cache` frees the first."},
		{"signal: killed", "The linker was killed, most likely for want of memory: it takes 3.3 GB."},
		{"cannot allocate memory", "There is too little memory: the linker takes 3.3 GB."},
		{"dial tcp", "The Go modules could not be downloaded: this needs the network once (or a GOPROXY that can be reached)."},
		{"no such host", "The Go modules could not be downloaded: this needs the network once (or a GOPROXY that can be reached)."},
		{"module lookup disabled", "Go may not download modules here: allow it once (GOPROXY, -mod), or bring a filled module cache."},
		{"checksum mismatch", "A downloaded module is not what go.sum says: whatever stands between here and the module proxy has changed it."},
	} {
		if strings.Contains(said, known.sign) {
			return "Remedy: " + known.remedy
		}
	}
	return "Remedy: see above. Programs that were built elsewhere can be used by setting " + Variable + " to their folder."
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return strings.TrimSpace(string(exit.Stderr))
	}
	return ""
}

// lineWriter hands what is written to it on, line by line.
type lineWriter struct {
	each func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		w.each(string(line))
		w.rest = rest
	}
}
