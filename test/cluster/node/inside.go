//go:build linux

package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// enter is the cluster's first process, PID 1, up to where it is wholly inside. It waits until it has been put into its
// cgroup, makes that the root of a cgroup namespace, and runs itself again: a Go program has several threads, and only the
// one that asks for a namespace is in it.
func enter(folder string) error {
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		return fmt.Errorf("the keeper gave up: %w", err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make a cgroup namespace: %w", err)
	}
	return unix.Exec("/proc/self/exe", []string{"init", "init", folder}, os.Environ())
}

// run is PID 1 from there on: it furnishes the namespaces, starts the components, and collects whatever process ends.
func run(folder string) error {
	s, err := load(folder)
	if err != nil {
		return err
	}
	if err := s.furnish(); err != nil {
		return errors.Join(err, s.fail("furnish the namespaces", err))
	}
	return s.runComponents()
}

func (s *spec) furnish() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"the name", func() error { return unix.Sethostname([]byte(s.Name)) }},
		{"the mounts", s.mount},
		{"the cgroups", func() error { return mountCgroups(all) }},
		{"the network", s.network},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// mount hides the machine's folders that a node writes to. Nothing that is mounted here is seen outside.
func (s *spec) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	// The machine's sysfs shows its network and its cgroups. Several may be mounted on each other.
	for unix.Unmount("/sys", unix.MNT_DETACH) == nil {
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("/sys: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib", "/var/log"} {
		if err := hide(dir, s.Folder, s.Binaries); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	for dir, at := range map[string]string{"kubelet": "/var/lib/kubelet", "pods": "/var/log/pods"} {
		if err := errors.Join(os.MkdirAll(s.file(dir), 0o755), os.MkdirAll(at, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(s.file(dir), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	// The kubelet wants to see what is mounted in a pod that asks for it.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// hide puts an empty folder in the place of another, except for what the cluster needs below it.
func hide(dir string, needed ...string) error {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	needed = slices.DeleteFunc(needed, func(path string) bool { return !strings.HasPrefix(path, dir+"/") })
	var held []int
	for _, path := range needed {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		held = append(held, fd)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for i, path := range needed {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", held[i]), path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// mountCgroups mounts the hierarchies as this namespace sees them, and moves this process one cgroup down, beside those
// that the kubelet is going to make for pods.
func mountCgroups(all []hierarchy) error {
	const top = "/sys/fs/cgroup"
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if all[0].unified {
		if err := unix.Mount("cgroup2", top, "cgroup2", flags, ""); err != nil {
			return err
		}
		if err := moveDown(top); err != nil {
			return err
		}
		return delegate(top)
	}
	if err := unix.Mount("tmpfs", top, "tmpfs", flags, "mode=755"); err != nil {
		return err
	}
	for _, h := range all {
		name := strings.TrimPrefix(h.controllers, "none,name=")
		at := filepath.Join(top, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", at, "cgroup", flags, h.controllers); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		for alone := range strings.SplitSeq(name, ",") { // cpu and cpuacct, where both are in cpu,cpuacct
			if err := os.Symlink(name, filepath.Join(top, alone)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		if err := moveDown(at); err != nil {
			return err
		}
	}
	return nil
}

func moveDown(top string) error {
	dir := filepath.Join(top, "system")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := inheritCPUs(top, dir); err != nil {
		return err
	}
	return joinCgroups([]string{dir}, 0)
}

func (s *spec) network() error {
	if err := ip(
		"link set lo up",
		fmt.Sprintf("addr add %s/30 dev eth0", s.nodeAddress()),
		"link set eth0 up",
		// Only so that a lookup finds a way: kube-proxy changes the address before a packet takes it.
		fmt.Sprintf("route add %s via %s", serviceRange, s.hostAddress()),
	); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	// Without this module in the kernel, traffic of a bridge passes iptables in no case.
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
