//go:build linux

// Package dockerfile builds the Dockerfile, and compares what comes out with the images of test/images.
package dockerfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"remora.dev/remora/test/cluster/image"
)

// root is the folder of the module, as seen from here.
const root = "../.."

// base is the image that stands for both base images. It is made here, so no registry is asked.
const base = "base.invalid/debian:1"

// goroot is where the machine's Go is in it.
const goroot = "/goroot"

// A store is where one test keeps images. It goes with the test.
type store struct {
	dir   string
	goEnv map[string]string
}

func newStore(t *testing.T) *store {
	t.Helper()
	if _, err := exec.LookPath("buildah"); err != nil {
		t.Fatalf("%v; on Debian, as root: apt-get install --no-install-recommends buildah", err)
	}
	s := &store{dir: t.TempDir(), goEnv: map[string]string{}}
	out := run(t, exec.CommandContext(t.Context(), "go", "env", "-json"))
	if err := json.Unmarshal([]byte(out), &s.goEnv); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(s.dir, "base.tar")
	if err := writeBase(t.Context(), archive, s.goEnv); err != nil {
		t.Fatal(err)
	}
	s.buildah(t, "pull", "--quiet", "docker-archive:"+archive)
	return s
}

func (s *store) buildah(t *testing.T, args ...string) {
	t.Helper()
	all := []string{"--root", filepath.Join(s.dir, "images"), "--runroot", filepath.Join(s.dir, "run"), "--storage-driver", "vfs"}
	cmd := exec.CommandContext(t.Context(), "buildah", append(all, args...)...)
	cmd.Dir = root
	run(t, cmd)
}

// build gives a target of the Dockerfile for an architecture. The machine's programs and Go's caches are mounted while it is
// built: they stand for what the base images would bring, and are no part of it.
func (s *store) build(t *testing.T, target, architecture, version string) unpacked {
	t.Helper()
	name := "built.invalid/" + target + ":" + architecture
	s.buildah(t, "build", "--layers", "--isolation", "chroot", "--network", "host", "--pull-never", "--quiet",
		"--platform", "linux/"+architecture, "--build-arg", "BUILDPLATFORM=linux/"+runtime.GOARCH, // buildah 1.28 does not set it
		"--build-arg", "GO_IMAGE="+base, "--build-arg", "DEBIAN_IMAGE="+base, "--build-arg", "VERSION="+version,
		"--volume", "/usr:/usr:ro", "--volume", s.goEnv["GOROOT"]+":"+goroot+":ro",
		"--volume", s.goEnv["GOMODCACHE"]+":/go/pkg/mod", "--volume", s.goEnv["GOCACHE"]+":/go/build",
		"--target", target, "--tag", name, ".")
	archive := filepath.Join(s.dir, target+"-"+architecture+".tar")
	s.buildah(t, "push", "--quiet", name, "docker-archive:"+archive)
	return unpack(t, archive)
}

// run gives what a program printed to its standard output, and fails with all that it said.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), said.String())
	}
	return out.String()
}

// writeBase writes an image of a Debian whose /usr is to be mounted: folders, the links into /usr, and from where apt loads.
func writeBase(ctx context.Context, archive string, goEnv map[string]string) error {
	const certificates = "/etc/ssl/certs/ca-certificates.crt"
	files := []image.File{
		{Path: certificates, Source: certificates},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n")},
		{Path: "/etc/group", Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Path: "/var/lib/dpkg/status"},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	for _, folder := range []string{
		"/usr", goroot, "/go/pkg/mod", "/go/build", "/proc", "/sys", "/dev", "/run", "/var/tmp", "/var/lib/dpkg/info",
		"/var/lib/dpkg/updates", "/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial", "/var/log/apt",
		"/etc/apt/apt.conf.d", "/etc/apt/preferences.d", "/etc/apt/sources.list.d",
	} {
		files = append(files, image.File{Path: folder, Mode: fs.ModeDir | 0o755})
	}
	for _, folder := range []string{"bin", "sbin", "lib", "lib32", "lib64"} {
		if target, err := os.Readlink("/" + folder); err == nil {
			files = append(files, image.File{Path: "/" + folder, Target: target})
		}
	}
	apt, err := aptFiles(ctx)
	if err != nil {
		return err
	}
	environment := []string{"PATH=" + goroot + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOPATH=/go", "GOTOOLCHAIN=local"}
	for _, name := range []string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE", "GOFLAGS"} {
		environment = append(environment, name+"="+goEnv[name])
	}
	return image.Write(archive, base, image.Config{Env: environment}, append(files, apt...))
}

// aptFiles are the sources of Debian's packages that this machine uses, the keys beside them, and the proxies.
func aptFiles(ctx context.Context) ([]image.File, error) {
	var files []image.File
	sources, err := filepath.Glob("/etc/apt/sources.list.d/*")
	if err != nil {
		return nil, err
	}
	for _, source := range append(sources, "/etc/apt/sources.list") {
		content, err := os.ReadFile(source)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if regexp.MustCompile(`(?i)debian`).Match(content) { // and of nobody else
			files = append(files, image.File{Path: source, Source: source})
		}
	}
	if len(files) == 0 {
		return nil, errors.New("apt has no source of Debian's packages on this machine, from which the Dockerfile takes iptables")
	}
	for _, folder := range []string{"/etc/apt/keyrings", "/etc/apt/trusted.gpg.d"} {
		keys, err := image.Tree(folder, folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		files = append(files, keys...)
	}
	all, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-config dump: %w", err)
	}
	proxies := regexp.MustCompile(`(?mi)^Acquire::.*Proxy.*$`).FindAllString(string(all), -1)
	return append(files, image.File{Path: "/etc/apt/apt.conf.d/proxies", Data: []byte(strings.Join(proxies, "\n") + "\n")}), nil
}
