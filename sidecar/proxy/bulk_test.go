package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// much is more than any buffer on the way takes in.
const much = 16 << 20

func TestALargeDirectionHoldsNoPipeWhileNothingComes(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, r.world, func(c *net.TCPConn) { _, _ = io.Copy(c, struct{ io.Reader }{c}) }) // without a pipe of its own
	const count = 20
	text := bytes.Repeat([]byte("remora\n\x00"), much/8)
	for range count {
		c := app(t, r.world)
		go func() { _, _ = c.Write(text) }()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("other bytes came back (%v)", err)
		}
	}
	// All connections are open still. The pool keeps pipes for a while, and lets go of them when memory is collected.
	for limit := time.Now().Add(20 * time.Second); openPipes(t) >= count; runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatalf("%d ends of pipes are open with %d silent connections", openPipes(t), count)
		}
		runtime.GC()
	}
}

func TestAResetPassesInTheMiddleOfMuch(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	text := make([]byte, much)
	met := make(chan error, 1)
	remote(t, r.world, func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, much)); err != nil {
			met <- err
			return
		}
		_ = c.SetLinger(0) // while the app goes on sending
	})
	c := app(t, r.world)
	for err := error(nil); err == nil; {
		if _, err = c.Write(text); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the app met %v, want a reset", err)
		}
	}

	c = app(t, r.world)
	if _, err := c.Write(text[:much/2]); err != nil {
		t.Fatal(err)
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-met; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the remote met %v, want a reset", err)
	}
}

func openPipes(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}
