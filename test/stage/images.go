// Package stage is what the demo and the tests on a whole cluster have in common: the product and the tools as images, fake
// providers as pods that remember what they received, and names for them in the cluster's DNS.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"remora.dev/remora/test/cluster/image"
)

// The images beside the product's. All are to be loaded, not pulled, but for App, which is a real one's name.
const (
	// ProviderImage holds the fake provider, of this package's folder provider, and nothing else.
	ProviderImage = "remora.dev/demo-provider:latest"
	// AppImage is that of the app in the mesh's own walkthrough: curl and a shell, and root's.
	AppImage = "registry-cn-hangzhou.ack.aliyuncs.com/ack-demo/curl:asm-sleep"
)

// The images of tests that attack.
const (
	// HostileImage is AppImage with this machine's iptables and this package's program hostile, and a folder /loot for everybody.
	HostileImage = "remora.dev/hostile:latest"
	// NginxImage holds this machine's nginx, without a configuration.
	NginxImage = "remora.dev/nginx:latest"
)

// programs are what an app has beside its own: this machine's.
var programs = []string{
	"cat", "chmod", "curl", "cut", "date", "env", "find", "grep", "head", "id", "ls", "mkdir", "mv", "rm", "sed", "seq", "sh", "sleep",
	"sort", "stat", "tail", "timeout", "touch", "tr", "uniq", "wc",
}

// Archives are image archives, as package image writes them.
type Archives struct {
	Product       []string // each image of the product, as `make images` names it
	Provider, App string
}

// All are all of them.
func (a Archives) All() []string { return append([]string{a.Provider, a.App}, a.Product...) }

// WriteImages builds the product as `make build` does, packs it as `make images` does, and writes the tools' images, all into
// the folder dir. The module's folder is root. Nothing is downloaded.
func WriteImages(ctx context.Context, root, dir string) (Archives, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Archives{}, err
	}
	if err := build(ctx, root, dir, product...); err != nil {
		return Archives{}, err
	}
	packed, err := command(ctx, root, "run", "./test/images", dir)
	if err != nil {
		return Archives{}, err
	}
	a, err := WriteTools(ctx, root, dir)
	for line := range strings.Lines(packed) { // ARCHIVE REFERENCE
		archive, _, _ := strings.Cut(line, " ")
		a.Product = append(a.Product, archive)
	}
	return a, err
}

// WriteTools writes the images beside the product's only.
func WriteTools(ctx context.Context, root, dir string) (Archives, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Archives{}, err
	}
	a := Archives{Provider: filepath.Join(dir, "demo-provider.tar"), App: filepath.Join(dir, "app.tar")}
	if err := build(ctx, root, dir, "./test/stage/provider"); err != nil {
		return a, err
	}
	provider := image.File{Path: "/provider", Mode: 0o755, Source: filepath.Join(dir, "provider")}
	app, err := appFiles(ctx)
	if err != nil {
		return a, err
	}
	for _, one := range []struct {
		archive, reference string
		config             image.Config
		files              []image.File
	}{
		{a.Provider, ProviderImage, image.Config{Entrypoint: []string{"/provider"}, User: "1000:1000"}, []image.File{provider}},
		{a.App, AppImage, image.Config{Cmd: []string{"/bin/sleep", "infinity"}}, app},
	} {
		if err := image.Write(one.archive, one.reference, one.config, one.files); err != nil {
			return a, err
		}
	}
	return a, nil
}

// WritePlugin builds kubectl's plug-in, as `make build` does, into the folder dir.
func WritePlugin(ctx context.Context, root, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	return build(ctx, root, dir, "./webhook/kubectl-remora")
}

// WriteHostile writes the images of tests that attack, and gives their archives.
func WriteHostile(ctx context.Context, root, dir string) (archives []string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := build(ctx, root, dir, "./test/stage/hostile"); err != nil {
		return nil, err
	}
	hostile, err := appFiles(ctx)
	if err != nil {
		return nil, err
	}
	iptables, err := image.Iptables(ctx)
	if err != nil {
		return nil, err
	}
	nginx, err := image.Program(ctx, "/usr/sbin/nginx")
	if err != nil {
		return nil, fmt.Errorf("%w. On Debian: apt-get install --no-install-recommends nginx", err)
	}
	hostile = append(append(hostile, iptables...), image.File{Path: "/bin/hostile", Mode: 0o755, Source: filepath.Join(dir, "hostile")},
		image.File{Path: "/loot", Mode: fs.ModeDir | fs.ModeSticky | 0o777})
	nginx = append(nginx, image.File{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777})
	archives = []string{filepath.Join(dir, "hostile.tar"), filepath.Join(dir, "nginx.tar")}
	return archives, errors.Join(
		image.Write(archives[0], HostileImage, image.Config{Cmd: []string{"/bin/sleep", "infinity"}}, hostile),
		image.Write(archives[1], NginxImage, image.Config{Cmd: []string{"/usr/sbin/nginx"}}, nginx))
}

// product are the packages of its programs.
var product = []string{"./sidecar", "./webhook", "./sidecar/redirect"}

func build(ctx context.Context, root, dir string, packages ...string) error {
	_, err := command(ctx, root, append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + "/"}, packages...)...)
	return err
}

func command(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		var said []byte
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output gives it bare
			said = exit.Stderr
		}
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, said)
	}
	return string(out), nil
}

// appFiles are the programs of an app, with what they need.
func appFiles(ctx context.Context) ([]image.File, error) {
	files := []image.File{
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/:/bin/sh\n")},
		{Path: "/etc/group", Data: []byte("root:x:0:\n")},
	}
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err == nil {
			path, err = filepath.EvalSymlinks(path) // an image has the program and not what leads to it
		}
		if err != nil {
			return nil, fmt.Errorf("the app's image takes along programs of this machine: %w. On Debian: apt-get install --no-install-recommends %s", err, name)
		}
		program, err := image.Program(ctx, path)
		if err != nil {
			return nil, err
		}
		files = append(files, program[1:]...)
		files = append(files, image.File{Path: "/bin/" + name, Mode: 0o755, Source: path})
	}
	return files, nil
}
