package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that can be killed and started again.
type Process struct {
	path  string
	args  []string
	log   string
	ready func(context.Context) error

	running *os.Process
	ended   chan struct{}
}

// NewProcess describes a program that writes to the file log, and the question whether it is ready. Start runs it.
func NewProcess(path, log string, ready func(context.Context) error, args ...string) *Process {
	return &Process{path: path, args: args, log: log, ready: ready}
}

// Start runs the program and waits until it is ready. The error shows the end of its log.
func (p *Process) Start(ctx context.Context) error {
	if p.running != nil {
		return fmt.Errorf("%s runs already", p.path)
	}
	started := make(chan error)
	p.ended = make(chan struct{})
	go p.run(started)
	if err := <-started; err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for {
		err := p.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-pause.C:
			continue
		case <-p.ended:
			err = errors.New("it has ended")
		case <-ctx.Done():
			err = fmt.Errorf("it is not ready in time: %w", err)
		}
		text, _ := os.ReadFile(p.log) // what it said is the best explanation there is
		p.Kill()
		return fmt.Errorf("%s: %w\n%s", filepath.Base(p.path), err, text[max(0, len(text)-3000):])
	}
}

// run keeps the thread that starts the program: it is when that thread ends that the kernel kills the program.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		started <- err
		return
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...) //nolint:noctx // Kill ends it, and the kernel with this process
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.running = cmd.Process
	started <- nil
	_ = cmd.Wait() // killed, as a rule
	close(p.ended)
}

// Kill ends the program at once, as a crash would, and waits for its end.
func (p *Process) Kill() {
	if p.running == nil {
		return
	}
	_ = p.running.Kill() // it may have ended already
	<-p.ended
	p.running = nil
}

// Stop asks the program to end, waits until it has, and kills it when ctx ends first.
func (p *Process) Stop(ctx context.Context) error {
	if p.running == nil {
		return nil
	}
	_ = p.running.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.ended:
		p.running = nil
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s does not end: %w", filepath.Base(p.path), ctx.Err())
	}
}

// Freeze stops the program from running: connections to it stay open and are not answered.
func (p *Process) Freeze() error { return p.running.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen program go on.
func (p *Process) Thaw() error { return p.running.Signal(syscall.SIGCONT) }

// PID is the number of the process, or 0.
func (p *Process) PID() int {
	if p.running == nil {
		return 0
	}
	return p.running.Pid
}

// Log is the file that the program writes to.
func (p *Process) Log() string { return p.log }
