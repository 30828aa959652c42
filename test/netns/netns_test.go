package netns_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/netns"
)

const (
	name        = "dashscope.aliyuncs.com"
	outsideFile = "NETNS_TEST_OUTSIDE" // in its environment the test finds what the machine's /etc/hosts was
	errand      = "NETNS_TEST_ERRAND"  // a process with this set is not a test: it does the errand from inside
)

func TestMain(m *testing.M) {
	// The process outside passes here first, so what it reads is the machine's file.
	if os.Getenv(outsideFile) == "" {
		hosts, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			panic(err)
		}
		os.Setenv(outsideFile, "seen:"+string(hosts))
	}
	hosts := map[string]string{name: "127.0.0.1", "second.example": "127.0.0.2"}
	if addr, ok := strings.CutPrefix(os.Getenv(errand), "dial "); ok {
		netns.Enter(hosts)
		if _, err := net.Dial("tcp", addr); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	switch os.Getenv(errand) {
	case "exit 7":
		netns.Enter(hosts)
		os.Exit(7)
	case "wait":
		netns.Enter(hosts)
		os.Stdout.WriteString("inside\n")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "other name":
		netns.Enter(map[string]string{"third.example": "127.0.0.1"})
		os.Exit(0)
	case "far address":
		netns.Enter(map[string]string{name: "192.0.2.1"})
		os.Exit(0)
	}
	netns.Enter(hosts)
	os.Exit(m.Run())
}

func TestAnOwnedNameResolvesToItsAddress(t *testing.T) {
	f := func(host, want string) {
		t.Helper()
		got, err := net.DefaultResolver.LookupHost(t.Context(), host)
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s resolves to %v (%v), want %s", host, got, err, want)
		}
	}
	f(name, "127.0.0.1")
	f("second.example", "127.0.0.2")
}

func TestAnUnknownNameFailsAtOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, err := net.DefaultResolver.LookupHost(ctx, "api.openai.com")
	if err == nil {
		t.Fatalf("a name that nobody gave resolves to %v", got)
	}
	if ctx.Err() != nil {
		t.Fatalf("the lookup took longer than a second: %v", err)
	}
}

func TestOnlyLoopbackIsThereAndItWorks(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if up := i.Flags&net.FlagUp != 0; up != (i.Name == "lo") {
			t.Errorf("interface %s has flags %v; want lo up and nothing else", i.Name, i.Flags)
		}
	}
	// Port 443, so this also shows that the namespace is ours: it is free whatever the machine runs.
	l, err := net.Listen("tcp", "127.0.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", net.JoinHostPort(name, "443"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if conn, err := net.DialTimeout("tcp", "192.0.2.1:443", time.Second); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("the world is reachable: %v %v", conn, err)
	}
}

func TestTheMachineKeepsItsHostsFile(t *testing.T) {
	before := strings.TrimPrefix(os.Getenv(outsideFile), "seen:")
	if strings.Contains(before, name) {
		t.Fatalf("the machine's own hosts file names %s, so this test could not tell", name)
	}
	// The door-keeper is our parent and stayed outside; through it we see the machine's own file.
	parent, err := os.ReadFile("/proc/" + parentID() + "/root/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	if string(parent) != before {
		t.Errorf("outside, /etc/hosts is now\n%s\nand was\n%s", parent, before)
	}
	inside, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(inside, []byte(name)) {
		t.Errorf("inside, /etc/hosts lacks %s:\n%s", name, inside)
	}
}

func TestTheExitCodeComesThrough(t *testing.T) {
	run := again(t, "exit 7", outside)
	var exit *exec.ExitError
	if err := run.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit status 7", err)
	}
}

func TestASignalReachesTheProgramInside(t *testing.T) {
	run := again(t, "wait", outside)
	run.Stdout, run.Stderr = nil, nil
	stdin, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("inside\n"))); err != nil {
		t.Fatal(err)
	}
	if err := run.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The program inside holds the other end of stdout: end of file means that it is gone, not only its door-keeper.
	if _, err := io.ReadAll(stdout); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := run.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Errorf("got %v, want exit status 143", err)
	}
}

func TestTheProgramInsideDiesWithItsDoorKeeper(t *testing.T) {
	run := again(t, "wait", outside)
	run.Stdout, run.Stderr = nil, nil
	stdin, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("inside\n"))); err != nil {
		t.Fatal(err)
	}
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(stdout); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait() // killed, as asked
}

func TestAProgramStartedInsideStaysInTheSameNamespace(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := again(t, "dial "+l.Addr().String(), inside).Run(); err != nil {
		t.Errorf("it cannot reach a listener of ours: %v", err)
	}
	if err := again(t, "dial "+l.Addr().String(), outside).Run(); err == nil {
		t.Errorf("a namespace of its own reaches a listener of ours, so this test shows nothing")
	}
	other := again(t, "other name", inside)
	var said bytes.Buffer
	other.Stderr = &said
	if err := other.Run(); err == nil || !strings.Contains(said.String(), "third.example") {
		t.Errorf("a name that the namespace lacks: %v, said %q; want a failure that names it", err, said.String())
	}
}

func TestAnAddressBeyondLoopbackIsRefused(t *testing.T) {
	run := again(t, "far address", outside)
	var said bytes.Buffer
	run.Stderr = &said
	if err := run.Run(); err == nil || !strings.Contains(said.String(), "192.0.2.1") {
		t.Errorf("%v, said %q; want a failure that names the address", err, said.String())
	}
}
