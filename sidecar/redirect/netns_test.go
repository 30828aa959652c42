//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program is redirect itself where asRedirect is set, and an app that calls an address where asApp is: from the port
// that appPort names, and for as long as appPatience says.
const (
	asRedirect  = "REDIRECT_TEST_RUN"
	asApp       = "REDIRECT_TEST_CALL"
	appPort     = "REDIRECT_TEST_PORT"
	appPatience = "REDIRECT_TEST_PATIENCE"
)

// noRest keeps the race detector from waiting a second at the end of each process.
const noRest = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if address := os.Getenv(asApp); address != "" {
		fmt.Fprint(os.Stdout, call(context.Background(), address))
		os.Exit(0)
	}
	if os.Getenv(asRedirect) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// A place is a network namespace of its own: the pod, or the world around it. A thread stays in it, on which it is used.
type place struct {
	thread int
	calls  chan func()
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and the namespace with the thread
		p.thread = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for call := range p.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("a network namespace, for which this test needs root: %v", err)
	}
	t.Cleanup(func() { close(p.calls) })
	p.sh(t, "ip link set lo up")
	return p
}

// in runs a function in the place. It must not end the test.
func (p *place) in(f func()) {
	done := make(chan struct{})
	p.calls <- func() { defer close(done); f() }
	<-done
}

func (p *place) run(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	p.in(func() { err = cmd.Run() })
	return out.String(), err
}

// sh runs lines of a shell, each of which must succeed.
func (p *place) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := p.run(exec.CommandContext(t.Context(), "sh", "-ec", script))
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return out
}

// redirect runs the program with the given capabilities of a root user and no others, and gives what it said and its exit code.
func (p *place) redirect(t *testing.T, capabilities, args string, environment ...string) (string, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := []string{"--inh-caps=-all", "--bounding-set=-all" + capabilities, "--no-new-privs", self}
	cmd := exec.CommandContext(t.Context(), "setpriv", append(words, strings.Fields(args)...)...)
	cmd.Env = append(append(os.Environ(), asRedirect+"=1", noRest), environment...)
	out, err := p.run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

// works wants redirect to succeed, and gives what it said.
func (p *place) works(t *testing.T, capabilities, args string) string {
	t.Helper()
	out, code := p.redirect(t, capabilities, args)
	if code != exitOK {
		t.Fatalf("redirect %s ended with %d:\n%s", args, code, out)
	}
	return out
}

// serve answers each connection with a name, its destination where the kernel remembers another, and the end.
func (p *place) serve(t *testing.T, name string, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		var listener net.Listener
		var err error
		p.in(func() { listener, err = net.Listen("tcp", address) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				answer := name
				if to, err := destination(conn.(*net.TCPConn)); err == nil && to.String() != conn.LocalAddr().String() {
					answer += " for " + to.String()
				}
				fmt.Fprint(conn, answer)
				conn.Close()
			}
		}()
	}
}

// call gives what answers at an address, or what is wrong.
func call(ctx context.Context, address string) string {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if port, err := strconv.Atoi(os.Getenv(appPort)); err == nil {
		dialer.LocalAddr = &net.TCPAddr{Port: port}
	}
	if patience, err := time.ParseDuration(os.Getenv(appPatience)); err == nil {
		dialer.Timeout = patience
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

// app calls an address as a process of the given user and group.
func (p *place) app(t *testing.T, uid, gid uint32, address string, environment ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe") // also for a user who may not see the folder
	cmd.Env = append(append(os.Environ(), asApp+"="+address, noRest), environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := p.run(cmd)
	if err != nil {
		t.Fatalf("an app of user %d: %v: %s", uid, err, out)
	}
	return out
}

// newPod gives a pod and the world, which answers as "the world" at 192.0.2.1, 203.0.113.7 and their like of IPv6, ports 80 and
// 8080. The pod has the addresses 10.9.0.2 and, if six says so, fd00::2.
func newPod(t *testing.T, family ...string) (pod, world *place) {
	t.Helper()
	pod, world = newPlace(t), newPlace(t)
	pod.sh(t, `ip link add eth0 type veth peer name gate netns `+strconv.Itoa(world.thread)+`
		ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up`)
	world.sh(t, `ip addr add 10.9.0.1/24 dev gate; ip link set gate up; ip addr add 192.0.2.1/32 dev lo; ip addr add 203.0.113.7/32 dev lo`)
	pod.sh(t, "ip route add default via 10.9.0.1")
	if len(family) > 0 {
		pod.sh(t, "ip addr add fd00::2/64 dev eth0 nodad")
		world.sh(t, "ip addr add fd00::1/64 dev gate nodad; ip addr add 2001:db8::1/128 dev lo nodad; ip addr add 2001:db8:1::7/128 dev lo nodad")
		pod.sh(t, "ip route add default via fd00::1")
	}
	for _, port := range []uint16{80, 8080} {
		for _, address := range []string{"192.0.2.1", "203.0.113.7", "2001:db8::1", "2001:db8:1::7"} {
			at := netip.AddrPortFrom(netip.MustParseAddr(address), port)
			if at.Addr().Is4() || len(family) > 0 {
				world.serve(t, "the world", at.String())
			}
		}
	}
	return pod, world
}
