package integration

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate is a way to the API server that can be slow, cut or closed.
type gate struct {
	listener net.Listener
	to       string
	slowness time.Duration // of what the API server says
	done     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
	passed int
}

// throughAGate lets a sidecar that does not run yet reach the API server by a gate.
func (n *tenant) throughAGate(t *testing.T, s *sidecar, slowness time.Duration) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, to: strings.TrimPrefix(n.URL(), "https://"), slowness: slowness, open: map[net.Conn]struct{}{}}
	t.Cleanup(func() {
		l.Close()
		g.shut()
		g.done.Wait()
	})
	g.done.Go(g.accept)
	text, err := os.ReadFile(s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(text), n.URL(), "https://"+l.Addr().String(), 1)
	if other == string(text) {
		t.Fatalf("%s does not name the API server %s", s.Kubeconfig, n.URL())
	}
	if err := os.WriteFile(s.Kubeconfig, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *gate) accept() {
	for {
		in, err := g.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		g.done.Go(func() { g.pass(in) })
	}
}

func (g *gate) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", g.to)
	if err != nil {
		return
	}
	defer out.Close()
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.passed++
	g.open[in], g.open[out] = struct{}{}, struct{}{}
	g.mu.Unlock()
	g.done.Go(func() {
		_, _ = io.Copy(out, in) // until either side has had enough
		out.Close()
	})
	g.answer(in, out)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, in)
	delete(g.open, out)
}

// answer brings what the API server says, each piece as late as the gate is slow.
func (g *gate) answer(in, out net.Conn) {
	if g.slowness == 0 {
		_, _ = io.Copy(in, out)
		return
	}
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1024)
	g.done.Go(func() {
		defer close(pieces)
		for {
			text := make([]byte, 16<<10)
			n, err := out.Read(text)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(g.slowness), text[:n]}
		}
	})
	for p := range pieces {
		<-time.After(time.Until(p.due))
		if _, err := in.Write(p.text); err != nil {
			out.Close() // the reader ends, and with it the pieces
		}
	}
}

// cut ends all connections; new ones may pass.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.open {
		c.Close()
	}
}

// shut lets nobody pass any more.
func (g *gate) shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cut()
}

// reopen lets everybody pass again.
func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
}

// connections counts those that have passed.
func (g *gate) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}
