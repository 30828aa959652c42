package main

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

// process is a child that dies with this one and runs on one core only.
type process struct {
	name   string
	cmd    *exec.Cmd
	out    *bufio.Reader
	said   lastWords
	exited chan struct{}
}

// self is this program, whatever has become of its file.
const self = "/proc/self/exe"

// launch starts argv on a core. The child is this program in the role `pinned`, which binds
// itself and then becomes argv: so no thread of it ever runs elsewhere.
func launch(name string, core int, argv []string) (*process, error) {
	p := &process{name: name, exited: make(chan struct{})}
	p.cmd = exec.Command(self, append([]string{"pinned", strconv.Itoa(core)}, argv...)...)
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
	p.out = bufio.NewReader(out)
	go func() {
		_ = p.cmd.Wait() // how it ended is in what it said
		out.Close()
		close(p.exited)
	}()
	return p, nil
}

// becomePinned is the role `pinned`.
//
//	args: CORE COMMAND ARGUMENT…
func becomePinned(args []string) error {
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

// bindSelf binds every thread of this process; later ones inherit it.
func bindSelf(core int) error {
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

// cores picks one for the load and the upstream, and another, if there is one, for the proxies.
func cores() (load, proxy int, err error) {
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

// used is the processor time of all threads so far, ended ones too, with the kernel's own precision
// of nanoseconds: /proc/PID/stat counts in steps of 10 ms.
func (p *process) used() (time.Duration, error) {
	const ofProcess = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var t unix.Timespec
	clock := int32(^p.cmd.Process.Pid)<<3 | ofProcess
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("processor time of %s: %w", p.name, err)
	}
	return time.Duration(t.Nano()), nil
}

// memory is what a process has resident, in bytes.
type memory struct {
	all     float64
	private float64 // without the pages of its program, which all processes share that run the same file
}

func (p *process) resident() (memory, error) {
	var m memory
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
			into = &m.all
		case "RssAnon":
			into = &m.private
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
		return m, fmt.Errorf("the resident memory of %s is unknown", p.name)
	}
	return m, nil
}

// stop ends the process and waits for its end.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(2 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// explain adds to an error what the process complained of.
func (p *process) explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-p.exited:
		err = fmt.Errorf("%w (%s has ended: %s)", err, p.name, p.cmd.ProcessState)
	default:
	}
	if said := p.said.String(); said != "" {
		return fmt.Errorf("%s: %w; it said: %s", p.name, err, said)
	}
	return fmt.Errorf("%s: %w", p.name, err)
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
