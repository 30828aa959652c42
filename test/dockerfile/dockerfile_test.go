//go:build linux

package dockerfile

import (
	"bytes"
	"debug/elf"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const version = "v1.2.3-test"

func TestTheDockerfileGivesTheImagesThatAreMadeWithoutIt(t *testing.T) {
	want := packed(t)
	s := newStore(t)
	for _, target := range []string{"webhook", "sidecar", "redirect"} {
		got := s.build(t, target, runtime.GOARCH, version)
		compare(t, target, got, want[target])
		if target == "redirect" {
			works(t, got)
		}
	}
	// The one image with more than a Go program in it: also for the other architecture, from here.
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	foreign(t, s.build(t, "redirect", other, version), other, want["redirect"])
}

// packed builds the programs as `make build` does, and packs them as `make images` does.
func packed(t *testing.T) map[string]unpacked {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{
		// In the Dockerfile there is no git to learn a version from.
		{"build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w -X main.version=" + version, "-o", dir, "./webhook", "./sidecar", "./sidecar/redirect"},
		{"run", "./test/images", dir},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		run(t, cmd)
	}
	all := map[string]unpacked{}
	for _, name := range []string{"webhook", "sidecar", "redirect"} {
		all[name] = unpack(t, filepath.Join(dir, name+".tar"))
	}
	return all
}

func compare(t *testing.T, target string, got, want unpacked) {
	t.Helper()
	if got.Architecture != want.Architecture || got.Config.User != want.Config.User ||
		!slices.Equal(got.Config.Entrypoint, want.Config.Entrypoint) || !slices.Equal(got.Config.Env, want.Config.Env) {
		t.Errorf("%s: the image is run as %s %+v, want %s %+v", target, got.Architecture, got.Config, want.Architecture, want.Config)
	}
	for _, name := range slices.Sorted(maps.Keys(want.files)) {
		w := want.files[name]
		g, ok := got.files[name]
		switch {
		case !ok:
			t.Errorf("%s: %s is missing", target, name)
		case g.kind != w.kind || g.mode != w.mode || g.uid != w.uid || g.gid != w.gid || g.link != w.link:
			t.Errorf("%s: %s is %c %o %d:%d %s, want %c %o %d:%d %s", target, name, g.kind, g.mode, g.uid, g.gid, g.link, w.kind, w.mode, w.uid, w.gid, w.link)
		// Debian may have a later iptables or C library than this machine.
		case g.content != w.content && !strings.HasPrefix(name, "/usr/") && !strings.HasPrefix(name, "/lib"):
			t.Errorf("%s: %s has another content: %d bytes, want %d", target, name, len(g.content), len(w.content))
		}
	}
	for name := range got.files {
		if _, ok := want.files[name]; !ok {
			t.Errorf("%s: %s is there and should not be", target, name)
		}
	}
}

// foreign wants the files of redirect for another architecture: the same names, and no program or library of this one.
func foreign(t *testing.T, got unpacked, architecture string, native unpacked) {
	t.Helper()
	if got.Architecture != architecture {
		t.Errorf("the image is for %s, want %s", got.Architecture, architecture)
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[architecture]
	loader := ""
	for name, f := range got.files {
		if !strings.HasPrefix(f.content, elf.ELFMAG) {
			continue
		}
		program, err := elf.NewFile(bytes.NewReader([]byte(f.content)))
		if err != nil || program.Machine != machine {
			t.Errorf("%s is no program or library of %s: %v", name, architecture, err)
			continue
		}
		if section := program.Section(".interp"); section != nil {
			content, err := section.Data()
			if err != nil {
				t.Fatal(err)
			}
			loader = strings.TrimRight(string(content), "\x00")
		}
	}
	if _, ok := got.files[loader]; !ok {
		t.Errorf("the loader %q of its programs is missing", loader)
	}
	if got, want := names(got), names(native); !slices.Equal(got, want) {
		t.Errorf("for %s there are\n%s\nand for this machine\n%s", architecture, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// names are those of the files, without their folders, whose names may be the architecture's; the loader's certainly is.
func names(u unpacked) []string {
	var all []string
	for name, f := range u.files {
		if f.content != "" && !strings.HasPrefix(path.Base(name), "ld-linux") || f.link != "" {
			all = append(all, path.Base(name))
		}
	}
	slices.Sort(all)
	return all
}

// works runs the image as a pod does: on a read-only root, in a network namespace, with both back ends.
func works(t *testing.T, redirect unpacked) {
	t.Helper()
	folder := t.TempDir()
	redirect.write(t, folder)
	for name, one := range map[string]struct{ before, capabilities string }{
		"iptables-nft":    {"", ",+net_admin"},
		"iptables-legacy": {"iptables-legacy -A INPUT -p udp --dport 9 -j ACCEPT; ip6tables-legacy -A INPUT -p udp --dport 9 -j ACCEPT", ",+net_admin,+net_raw"},
	} {
		const script = `
			mount --bind "$1" "$1"
			mkdir -p "$1/proc" "$1/dev/shm"
			mount -t proc proc "$1/proc"; mount -t tmpfs shm "$1/dev/shm"; mount -o remount,ro,bind "$1"
			ip link set lo up
			ip link add eth0 type veth peer name gate; ip addr add 10.9.0.2/24 dev eth0; ip addr add fd00::2/64 dev eth0 nodad
			ip link set eth0 up; ip link set gate up; ip route add default via 10.9.0.1; ip route add default via fd00::1
			eval "$2"
			export PATH="$4"
			exec setpriv --inh-caps=-all --bounding-set=-all,+sys_chroot"$3" --no-new-privs chroot "$1" "$5"`
		out := run(t, exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "sh", "-ec", script+` 2>&1`, "sh",
			folder, one.before, one.capabilities, strings.TrimPrefix(redirect.Config.Env[0], "PATH="), redirect.Config.Entrypoint[0]))
		for _, want := range []string{"IPv4 to 127.0.0.1:14001 (" + name + "; tried)", "IPv6 to [::1]:14001 (" + name + "; tried)"} {
			if !strings.Contains(out, want) {
				t.Errorf("the image of redirect does not say %q:\n%s", want, out)
			}
		}
	}
}
