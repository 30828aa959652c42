package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker names the environment variable by which a process knows where it is. Its value is the network namespace that
// Enter was called in, so that a marker that leaked out of a namespace is told from a true one; readySuffix is added
// once the namespace is furnished, for the programs started from inside that call Enter too.
const (
	marker      = "REMORA_NETNS_OUTSIDE"
	readySuffix = " ready"
)

// Enter makes the rest of the program run inside: only loopback, up; each name of hosts at its address (an IP address
// of loopback); every other name unknown at once. Call it first thing in main or TestMain, as root on Linux:
//
//	func TestMain(m *testing.M) {
//		netns.Enter(map[string]string{"dashscope.aliyuncs.com": "127.0.0.1"})
//		os.Exit(m.Run())
//	}
//
// In the process outside it never returns: it waits for the one inside, passes SIGINT, SIGTERM, SIGHUP and SIGQUIT on to
// it (a Ctrl-C at a terminal, which goes to both, therefore arrives twice), and exits with its code, or with 128 + the
// signal that ended it. If the one outside is killed, the one inside is killed too. Arguments, environment, working
// folder and open files are the same on both sides, so every flag of `go test` keeps its meaning.
//
// Called again by a program that was started inside, it stays in that namespace and demands that the names are known
// there. On failure it says what failed and exits with 1.
func Enter(hosts map[string]string) {
	content, err := hostsFile(hosts)
	if err != nil {
		fail("read the list of hosts", err)
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		fail("find out the network namespace", err)
	}
	outside, ready := strings.CutSuffix(os.Getenv(marker), readySuffix)
	switch {
	case outside == "" || outside == here:
		keepDoor(here)
	case ready:
		if err := haveNames(content); err != nil {
			fail("enter a namespace twice", err)
		}
	default:
		if err := furnish(content); err != nil {
			fail("furnish the network namespace", err)
		}
		if err := os.Setenv(marker, outside+readySuffix); err != nil {
			fail("note that the namespace is ready", err)
		}
	}
}

// keepDoor runs the program again in new namespaces and exits as it does.
func keepDoor(outside string) {
	// Pdeathsig fires when the *thread* that started the child ends, so that thread has to stay.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)

	inside := &exec.Cmd{
		Path:   "/proc/self/exe", // also right for a binary that is deleted by now, as with `go run`
		Args:   os.Args,
		Env:    append(os.Environ(), marker+"="+outside),
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
			Pdeathsig:  unix.SIGKILL,
		},
	}
	if err := inside.Start(); err != nil {
		fail("start this program in a new network and mount namespace", err)
	}
	go func() {
		for s := range signals {
			// Fails only when the child has ended; then Wait below is about to say so.
			_ = inside.Process.Signal(s)
		}
	}()
	err := inside.Wait()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		fail("wait for the program in the namespace", err)
	}
	if status, ok := inside.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		fmt.Fprintf(os.Stderr, "netns: the program in the namespace was ended by a signal: %v\n", status.Signal())
		os.Exit(128 + int(status.Signal()))
	}
	os.Exit(inside.ProcessState.ExitCode())
}

// furnish brings loopback up and replaces the files that say how names are looked up.
func furnish(hosts string) error {
	// Without this, where / is a shared mount, the bind mounts below would appear on the machine as well.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	if err := coverFiles(map[string]string{
		"/etc/hosts": hosts,
		// Nobody answers on 127.0.0.1:53, which the kernel says at once: an unknown name is an error and not a wait.
		"/etc/resolv.conf":   "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
	}); err != nil {
		return err
	}
	// A name service cache is reached by a path, not over the network: it would answer for the machine.
	const cache = "/var/run/nscd"
	if err := unix.Mount("tmpfs", cache, "tmpfs", 0, ""); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cover %s: %w", cache, err)
	}
	return nil
}

// coverFiles mounts a file with the given content over each path, in this mount namespace only. The files live on a
// memory file system that is in sight only as long as this takes, so nothing is left behind however the process ends.
// (Unlinked files would do as well, but nothing can be mounted over those again by a namespace within this one.)
func coverFiles(files map[string]string) error {
	// A minimal Debian has no /etc/hosts, and there must be something to cover. An empty one says what none says.
	if f, err := os.OpenFile("/etc/hosts", os.O_CREATE|os.O_EXCL, 0o644); err == nil {
		_ = f.Close()
	}
	folder := os.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a private file system over %s: %w", folder, err)
	}
	for path, content := range files {
		private := filepath.Join(folder, filepath.Base(path))
		if err := os.WriteFile(private, []byte(content), 0o644); err != nil {
			return err
		}
		err := unix.Mount(private, path, "", unix.MS_BIND, "")
		// Without a resolv.conf or nsswitch.conf, the C library and Go assume the very content that it would get.
		if err != nil && (path == "/etc/hosts" || !errors.Is(err, unix.ENOENT)) {
			return fmt.Errorf("mount a private file over %s: %w", path, err)
		}
	}
	if err := unix.Unmount(folder, 0); err != nil {
		return fmt.Errorf("take the private file system off %s again: %w", folder, err)
	}
	return nil
}

// loopbackUp does what `ip link set lo up` does, without needing ip.
func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo)
}

// haveNames says which of the wanted lines the hosts file of the namespace lacks.
func haveNames(want string) error {
	have, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(want) {
		if !strings.Contains("\n"+string(have), "\n"+line) {
			return fmt.Errorf("the namespace that this program was started in has no line %q in /etc/hosts; "+
				"name it where that namespace is made", strings.TrimSpace(line))
		}
	}
	return nil
}
