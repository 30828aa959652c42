// Package pinned runs what is measured: programs that stay on one core each, and what they use of it.
package pinned

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a child that dies with this one and runs on one core only.
type Process struct {
	Name   string
	cmd    *exec.Cmd
	Out    *bufio.Reader // what it writes to its standard output
	said   lastWords
	Exited chan struct{} // closed when it has ended
}

// Self is this program, whatever has become of its file.
const Self = "/proc/self/exe"

// Launch starts argv on a core. The calling program takes `pinned` as its first argument for Become; the child is this program in the role `pinned`, which binds
// itself and then becomes argv: so no thread of it ever runs elsewhere.
func Launch(name string, core int, argv []string) (*Process, error) {
	p := &Process{Name: name, Exited: make(chan struct{})}
	p.cmd = exec.Command(Self, append([]string{"pinned", strconv.Itoa(core)}, argv...)...)
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	p.cmd.Stderr = &p.said
	// The signal comes when the starting thread ends. Threads of this program end only with it:
	// none of its goroutines exits while locked to one.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer childOut.Close()
	p.cmd.Stdout = childOut
	if err := p.cmd.Start(); err != nil {
		out.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p.Out = bufio.NewReader(out)
	go func() {
		_ = p.cmd.Wait() // how it ended is in what it said
		out.Close()
		close(p.Exited)
	}()
	return p, nil
}

// Become is the role `pinned`.
//
//	args: CORE COMMAND ARGUMENT…
func Become(args []string) error {
	if len(args) < 2 {
		return errors.New("pinned: wants a core and a command")
	}
	core, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	// Of all threads, exec keeps the calling one and its affinity.
	if err := bindThread(0, core); err != nil {
		return err
	}
	return syscall.Exec(args[1], args[1:], os.Environ())
}

func bindThread(thread, core int) error {
	var set unix.CPUSet
	set.Set(core)
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(thread, &set))
}

// BindSelf binds every thread of this process; later ones inherit it.
func BindSelf(core int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := bindThread(id, core); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// Cores picks one for the load and the upstream, and another, if there is one, for the proxies.
func Cores() (load, proxy int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, err
	}
	var allowed []int
	for core := 0; len(allowed) < set.Count(); core++ {
		if set.IsSet(core) {
			allowed = append(allowed, core)
		}
	}
	return allowed[0], allowed[len(allowed)-1], nil
}

// Used is the processor time of all threads so far, ended ones too, with the kernel's own precision
// of nanoseconds: /proc/PID/stat counts in steps of 10 ms.
func (p *Process) Used() (time.Duration, error) {
	const ofProcess = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var t unix.Timespec
	clock := int32(^p.cmd.Process.Pid)<<3 | ofProcess
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("processor time of %s: %w", p.Name, err)
	}
	return time.Duration(t.Nano()), nil
}

// Memory is what a process has resident, in bytes.
type Memory struct {
	All     float64
	Private float64 // without the pages of its program, which all processes share that run the same file
}

// Resident reads what the kernel tells of it.
func (p *Process) Resident() (Memory, error) {
	var m Memory
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return m, err
	}
	found := 0
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		var into *float64
		switch name {
		case "VmRSS":
			into = &m.All
		case "RssAnon":
			into = &m.Private
		default:
			continue
		}
		if _, err := fmt.Sscan(value, into); err != nil {
			return m, err
		}
		*into *= 1024
		found++
	}
	if found != 2 {
		return m, fmt.Errorf("the resident memory of %s is unknown", p.Name)
	}
	return m, nil
}

// Stop ends the process and waits for its end.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.Exited:
	case <-time.After(2 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.Exited
	}
}

// Explain adds to an error what the process complained of.
func (p *Process) Explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-p.Exited:
		err = fmt.Errorf("%w (%s has ended: %s)", err, p.Name, p.cmd.ProcessState)
	default:
	}
	if said := p.said.String(); said != "" {
		return fmt.Errorf("%s: %w; it said: %s", p.Name, err, said)
	}
	return fmt.Errorf("%s: %w", p.Name, err)
}

// lastWords keeps the end of what a process writes.
type lastWords struct {
	mu   sync.Mutex
	text []byte
}

var _ io.Writer = (*lastWords)(nil)

func (w *lastWords) Write(p []byte) (int, error) {
	const keep = 4 << 10
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	if extra := len(w.text) - keep; extra > 0 {
		w.text = append(w.text[:0], w.text[extra:]...)
	}
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(bytes.TrimSpace(w.text))
}

// Kill ends the process at once.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }
