package admin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/snapshot"
)

// failing is a listener that lacks file descriptors at first.
type failing struct {
	net.Listener
	times int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.times--; f.times >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return f.Listener.Accept()
}

// health serves probes on a listener that fails at first, and gives its address.
func health(t *testing.T, failures int) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, done := New(snapshot.NewStore(), metrics.New()), make(chan error, 1)
	go func() { done <- s.ServeHealth(&failing{ln, failures}) }()
	t.Cleanup(func() {
		_ = s.Shutdown(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// probe asks once, on a connection that stays open until the test ends.
func probe(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: sidecar\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	return conn
}

func TestAProbeIsAnsweredHoweverManyConnectionsOthersLeaveOpen(t *testing.T) {
	address := health(t, 0)
	first := probe(t, address)
	for range maxConns {
		probe(t, address)
	}
	if n, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the oldest connection is still open: %d, %v", n, err)
	}
	for range maxConns {
		conn, err := net.Dial("tcp", address) // and nothing is sent on it
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	probe(t, address)
}

func TestProbesAreAnsweredAgainAfterALackOfFileDescriptors(t *testing.T) {
	probe(t, health(t, 2))
}
