package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestEachSideMayFinishByItself(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, r.world, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // until the app has finished
		_, _ = c.Write(b)
	})
	c := app(t, r.world)
	text := "POST / HTTP/1.0\r\n\r\nto the end"
	say(t, c, text)
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != text {
		t.Errorf("got %q (%v)", b, err)
	}

	_ = c.Close()
	c = app(t, r.world)
	_ = c.CloseWrite() // without a word
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("got %q (%v)", b, err)
	}
}

func TestAResetPassesBothWays(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	met := make(chan error, 1)
	remote(t, r.world, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		in := bufio.NewReader(c)
		line, err := in.ReadString('\n')
		if line == "you\n" {
			_ = c.SetLinger(0)
			return
		}
		if err == nil {
			_, err = in.ReadByte()
		}
		met <- err
	})
	c := app(t, r.world)
	hear(t, c, "hello")
	say(t, c, "you\n")
	wantReset(t, c)

	c = app(t, r.world)
	hear(t, c, "hello")
	say(t, c, "me\n")
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-met; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the remote met %v, want a reset", err)
	}
}

func TestAHundredMegabytesPassBothWaysAtOnce(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	const size = 100 << 20
	remote(t, r.world, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	c := app(t, r.world)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	block := bytes.Repeat([]byte("\x00\x01\x02\xff remora "), 8<<10)
	go func() {
		for sent := 0; sent < size; sent += len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
		_ = c.CloseWrite()
	}()
	got, n := make([]byte, len(block)), 0
	for ; ; n += len(block) {
		if _, err := io.ReadFull(c, got); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, block) {
			t.Fatalf("other bytes after %d", n)
		}
	}
	if n < size {
		t.Errorf("%d bytes came back", n)
	}
}

// Where the redirection does not know the sidecar's user, what it sends comes back to it.
func TestAConnectionThatComesBackIsNotPassedOnAgain(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	turn(t, "iptables", "-d 192.0.2.0/24 --dport 80")
	c := app(t, r.world)
	say(t, c, "GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n")
	wantReset(t, c)
	if r.log.find("exempt its user from the redirection") == "" {
		t.Error("the log does not say why")
	}
}

func TestSilentConnectionsCostLittleAndLeaveNothing(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	var greeted sync.WaitGroup
	remote(t, r.world, func(c *net.TCPConn) {
		greeted.Done()
		_, _ = io.Copy(io.Discard, c)
	})
	memory := func() int64 {
		runtime.GC()
		runtime.GC() // what earlier tests left in pools goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before, routines := memory(), runtime.NumGoroutine()
	const count = 500
	greeted.Add(count)
	all := make([]net.Conn, count)
	for i := range all {
		all[i] = app(t, r.world)
	}
	greeted.Wait()
	// Each is here with its app, its two sides in the proxy, and its remote, which has a buffer for what it drops.
	if each := (memory() - before) / count; each > 40<<10 {
		t.Errorf("%d bytes for each", each)
	} else {
		t.Logf("%d bytes for each", each)
	}
	for _, c := range all {
		_ = c.Close()
	}
	for end := time.Now().Add(15 * time.Second); runtime.NumGoroutine() > routines; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines before, %d after", routines, runtime.NumGoroutine())
		}
	}
}

func TestShutdownEndsRedirectedConnections(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, r.world, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	passing := app(t, r.world)
	text := "GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n"
	say(t, passing, text)
	hear(t, passing, text)
	silent, half := app(t, nowhere), app(t, r.world)
	say(t, half, text[:9])
	idle := app(t, r.world)
	in := bufio.NewReader(idle)
	say(t, idle, chat(qwen))
	if got := answered(t, in); got.status != 200 {
		t.Fatalf("got %+v", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- r.proxy.Shutdown(ctx) }()
	for _, c := range []net.Conn{silent, half, idle} {
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("got %q", b)
		}
	}
	if ctx.Err() != nil {
		t.Error("connections without a request were waited for")
	}
	say(t, passing, "more")
	hear(t, passing, "more")
	if _, err := io.ReadAll(passing); errors.Is(err, context.DeadlineExceeded) {
		t.Error("it was not cut")
	}
	if err := <-over; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
}
