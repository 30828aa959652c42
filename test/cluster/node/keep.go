//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Files that a keeper is handed by the process that starts it.
const (
	lockFD     = 3 // the cluster's lock, taken
	lifelineFD = 4 // a pipe that ends when the starter does; absent for a detached cluster
)

const (
	keeperFile  = "keeper.pid"
	initFile    = "init.pid"
	cgroupsFile = "cgroups"
	failedFile  = "failed" // why the cluster has ended by itself
)

// Run is the program keeper: what Start runs, and nobody else. A keeper stays outside of the cluster. It makes the
// namespaces, the cgroup and the veth pair, and takes all of it away when it is told to (SIGTERM), or when the process that
// started it is gone. Should the keeper be killed, the kernel kills the cluster.
func Run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "keep":
		return keep(args[1])
	case len(args) == 2 && args[0] == "enter":
		return enter(args[1])
	case len(args) == 2 && args[0] == "init":
		return run(args[1])
	}
	return errors.New("the keeper of a test cluster is run by test/cluster/node, with the cluster's folder; see `go run ./test/cluster help`")
}

func keep(folder string) error {
	s, err := load(folder)
	if err != nil {
		return err
	}
	gone, err := lifeline(s)
	if err != nil {
		return err
	}
	if err := s.write(keeperFile, strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	first, ended, err := s.open()
	if err != nil {
		return errors.Join(s.fail("start", err), s.close())
	}
	select {
	case err := <-ended:
		return errors.Join(s.fail("the node", err), s.close()) // the folder stays: the logs say why
	case <-told:
	case <-gone:
	}
	_ = first.Kill() // it may have ended this instant
	fmt.Fprintln(os.Stderr, "told to end; the node:", <-ended)
	return errors.Join(s.close(), s.remove())
}

// fail notes why the cluster has ended, unless that is noted already.
func (s *spec) fail(what string, reason error) error {
	if _, err := os.Stat(s.file(failedFile)); err == nil {
		return nil
	}
	return s.write(failedFile, fmt.Sprintf("%s: %v\n", what, reason))
}

// lifeline tells when the starter is gone.
func lifeline(s *spec) (<-chan struct{}, error) {
	unix.CloseOnExec(lockFD) // the cluster must not hold the lock: it would then outlive its keeper
	gone := make(chan struct{})
	if s.Detached {
		return gone, nil
	}
	unix.CloseOnExec(lifelineFD)
	pipe := os.NewFile(lifelineFD, "lifeline")
	if pipe == nil {
		return nil, errors.New("no lifeline")
	}
	go func() {
		_, _ = io.Copy(io.Discard, pipe) // nothing is ever sent: it is the end that matters
		close(gone)
	}()
	return gone, nil
}

// open starts the first process of the cluster, in namespaces and a cgroup of its own. The channel gives how it ended.
func (s *spec) open() (*os.Process, <-chan error, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, nil, err
	}
	// What is going to be made is noted first: whoever has to clean up after this process finds it there.
	dirs, err := makeCgroups(all, "remora-"+s.Name)
	if err := errors.Join(s.write(cgroupsFile, strings.Join(dirs, "\n")), err); err != nil {
		return nil, nil, err
	}
	started, ended := make(chan error), make(chan error, 1)
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", "enter", s.Folder)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = []string{"PATH=" + searchPath(), "HOME=" + s.Folder, "LANG=C.UTF-8"} // no proxy, no setting of the user's
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// The cgroup namespace comes later: its root is the cgroup that the process is in by then.
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	furnished, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	go func() {
		runtime.LockOSThread() // the kernel takes the end of this thread for the parent's death
		err := cmd.Start()
		if started <- err; err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, nil, fmt.Errorf("make namespaces (this needs root, and a kernel or container that allows them): %w", err)
	}
	err = errors.Join(s.write(initFile, strconv.Itoa(cmd.Process.Pid)), joinCgroups(dirs, cmd.Process.Pid), s.connect(cmd.Process.Pid))
	if err == nil {
		_, err = furnished.Write([]byte{1})
	}
	if err = errors.Join(err, furnished.Close()); err != nil {
		_ = cmd.Process.Kill() // it waits for what it will not get
		err = errors.Join(err, <-ended)
	}
	return cmd.Process, ended, err
}

// connect lays a veth pair from here into the namespace of a process.
func (s *spec) connect(pid int) error {
	link := s.interfaceName()
	return ip(
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", link, pid),
		fmt.Sprintf("addr add %s/30 dev %s", s.hostAddress(), link),
		fmt.Sprintf("link set %s up", link),
	)
}

// ip runs ip(8) for each of the lines, which have no quoting.
func ip(lines ...string) error {
	for _, line := range lines {
		program, err := find("ip")
		if err != nil {
			return err
		}
		if out, err := exec.CommandContext(context.Background(), program, strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}

// close takes away what open has made on the machine. The processes have ended; doing it again does no harm.
func (s *spec) close() error {
	// The kernel removes the pair when the namespace at its other end has gone, a moment after the last process. Asked by the
	// network itself: /sys may show that of another namespace.
	if _, err := net.InterfaceByName(s.interfaceName()); err == nil {
		failed := ip("link delete " + s.interfaceName())
		if _, err := net.InterfaceByName(s.interfaceName()); err == nil {
			return failed
		}
	}
	content, err := os.ReadFile(s.file(cgroupsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, removeCgroups(strings.Fields(string(content))))
}

// remove removes the folder. It is renamed first, so that the name is free at once and altogether.
func (s *spec) remove() error {
	gone := filepath.Join(filepath.Dir(s.Folder), fmt.Sprintf(".%s-%d", s.Name, time.Now().UnixNano()))
	if err := os.Rename(s.Folder, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}
