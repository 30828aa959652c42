//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func (d *demo) bash(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail\n"+script)
	cmd.Env = d.env
	return cmd
}

// sh runs a command unseen and gives all that it prints.
func (d *demo) sh(script string) (string, error) {
	out, err := d.bash(d.ctx, script).CombinedOutput()
	text := strings.TrimRight(string(out), "\n")
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", script, err, text)
	}
	return text, err
}

// show runs a command that must succeed, and prints both it and what it says.
func (d *demo) show(script string) (string, error) {
	d.command(script)
	out, err := d.bash(d.ctx, script).CombinedOutput()
	text := strings.TrimRight(string(out), "\n")
	d.output(text)
	return text, err
}

// refused runs a command that must fail.
func (d *demo) refused(script string) (string, error) {
	d.command(script)
	out, err := d.bash(d.ctx, script).CombinedOutput()
	text := strings.TrimRight(string(out), "\n")
	d.output(text)
	if err == nil {
		return text, errors.New("that was to be refused, and was accepted")
	}
	return text, nil
}

// typed is sh on a terminal of the command's own, as a person's command has one: kubectl exec -it wants it.
func (d *demo) typed(script string) (string, error) {
	master, slave, err := terminal()
	if err != nil { // this machine has none to give; kubectl says so, and goes on
		return d.sh(script)
	}
	defer master.Close()
	cmd := d.bash(d.ctx, script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	_ = slave.Close()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(&out, master) // ends with an error, EIO, when nobody has the other side open any more
		close(read)
	}()
	err = cmd.Wait()
	<-read
	return strings.TrimRight(strings.ReplaceAll(out.String(), "\r\n", "\n"), "\n"), err
}

// terminal gives both sides of a new one, wide enough for long lines.
func terminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	if err == nil {
		var number uint32
		if number, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN); err == nil {
			slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
		}
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 1000})
	}
	if err != nil {
		_ = master.Close()
	}
	return master, slave, err
}

// lines runs a command and calls f for each line as it comes.
func (d *demo) lines(ctx context.Context, script string, f func(string)) error {
	cmd := d.bash(ctx, script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		f(in.Text())
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	return nil
}

// kubectl is how the stage's own tools reach the cluster.
func (d *demo) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	path, err := exec.LookPath("kubectl")
	if d.cluster != nil {
		path, err = d.cluster.Binary("kubectl"), nil
	}
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Stdin = d.env, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return string(out), err
}

// quiet is kubectl whose output is of interest only where it fails.
func (d *demo) quiet(args ...string) error {
	out, err := d.kubectl(d.ctx, "", args...)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
