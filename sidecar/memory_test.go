package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// providing runs a provider without TLS, and gives the configuration that names it.
func providing(t *testing.T, control func(network, address string, c syscall.RawConn) error, handle http.HandlerFunc) string {
	t.Helper()
	l, err := (&net.ListenConfig{Control: control}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handle}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return write(t, "all.yaml", fmt.Sprintf(`apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: local}
spec: {host: 127.0.0.1, port: %d, tls: {mode: DISABLE}}
`, l.Addr().(*net.TCPAddr).Port))
}

// released builds the sidecar as it is released: this process may have the race detector in it, which takes several times
// the memory.
func released(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "sidecar")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return program
}

// resident gives a figure of /proc/PID/status in bytes.
func (s *sidecar) resident(field string) int {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		s.t.Fatalf("no %s in %s", field, status)
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n << 10
}

// TestAHundredLargeUploadsFitIntoLittleMemory has a hundred apps send 10 MB each, at every speed, to a sidecar that may use
// 128 MiB: as they are, they would take eight times that.
func TestAHundredLargeUploadsFitIntoLittleMemory(t *testing.T) {
	program := released(t)
	t.Setenv("GOMEMLIMIT", "128MiB")
	config := providing(t, nil, func(w http.ResponseWriter, q *http.Request) {
		if n, err := io.Copy(io.Discard, q.Body); err != nil || n < 10<<20 {
			t.Errorf("the provider got %d bytes: %v", n, err)
		}
		_, _ = io.WriteString(w, `{"choices":[]}`)
	})
	s := startProgram(t, program, "--config", config)
	body := []byte(`{"messages":"` + strings.Repeat("x", 10<<20) + `"}`)
	var running sync.WaitGroup
	var served, refused atomic.Int64
	upload := func(send func(c net.Conn) error) {
		c, err := net.Dial("tcp", s.listen)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(3 * time.Minute)) // whoever is not answered by then hangs
		go func() { _ = send(c) }()
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("not answered: %v", err)
			return
		}
		text, _ := io.ReadAll(answer.Body)
		switch {
		case answer.StatusCode == 200:
			served.Add(1)
		case answer.StatusCode == 503 && answer.Header.Get("Retry-After") != "" && strings.Contains(string(text), "Overloaded"):
			refused.Add(1)
		default:
			t.Errorf("answered %d %s", answer.StatusCode, text)
		}
	}
	announced := fmt.Sprintf("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n", len(body))
	paced := func(c net.Conn, piece int, pause time.Duration) error {
		for rest := body; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
			<-time.After(pause)
		}
		return nil
	}
	// The first three take all the memory, and send no more.
	for range 3 {
		running.Go(func() {
			upload(func(c net.Conn) error {
				_, err := io.WriteString(c, announced+strings.Repeat(" ", 20<<10))
				return err
			})
		})
	}
	for s.metric("remora_buffered_bytes") < 30<<20 { // until they have it
	}
	for i := range 97 {
		running.Go(func() {
			upload(func(c net.Conn) error {
				switch i % 4 {
				case 0: // slow
					if _, err := io.WriteString(c, announced); err != nil {
						return err
					}
					return paced(c, 100<<10, 10*time.Millisecond)
				case 1: // in chunks
					if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", len(body)); err != nil {
						return err
					}
					if err := paced(c, 1<<20, time.Millisecond); err != nil {
						return err
					}
					_, err := io.WriteString(c, "\r\n0\r\n\r\n")
					return err
				}
				_, err := c.Write(append([]byte(announced), body...))
				return err
			})
		})
	}
	running.Wait()
	peak := s.resident("VmHWM")
	t.Logf("%d served, %d refused, %d MiB at most", served.Load(), refused.Load(), peak>>20)
	if peak > 200<<20 {
		t.Errorf("it took %d MiB", peak>>20)
	}
	if served.Load() < 20 || refused.Load() < 3 {
		t.Errorf("%d were served, %d refused", served.Load(), refused.Load())
	}
	if n := s.metric("remora_buffered_bytes"); n != 0 {
		t.Errorf("%v bytes are still said to be buffered", n)
	}
}

// metric gives the value of one without labels.
func (s *sidecar) metric(name string) float64 {
	s.t.Helper()
	_, all := s.get(s.health + "/metrics")
	for line := range strings.Lines(all) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("no %s in\n%s", name, all)
	return 0
}

// tight gives a socket small buffers, so that what is sent has to wait in the sidecar.
func tight(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10)
	})
}

func TestAThousandStreamsThatNobodyReadsTakeLittleMemory(t *testing.T) {
	const streams = 1000
	event := append(append([]byte(`data: {"choices":[{"delta":{"content":"`), bytes.Repeat([]byte("x"), 4<<10)...), "\"}}]}\n\n"...)
	end := make(chan struct{})
	defer close(end)
	var stuck sync.WaitGroup
	stuck.Add(streams)
	config := providing(t, tight, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			// Once nothing can be written any more, all that could be held is held. The connection goes on.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * time.Second))
			if _, err := w.Write(event); err != nil {
				stuck.Done()
				<-end
				return
			}
		}
	})
	s := startProgram(t, released(t), "--config", config)
	before := s.resident("VmRSS")
	dialer := net.Dialer{Control: tight}
	for range streams {
		c, err := dialer.Dial("tcp", s.listen)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 29\r\n\r\n"+`{"stream":true,"messages":[]}`); err != nil {
			t.Fatal(err)
		}
	}
	stuck.Wait()
	each := (s.resident("VmRSS") - before) / streams
	t.Logf("%d KiB each", each>>10)
	if each > 128<<10 {
		t.Errorf("each stream takes %d KiB", each>>10)
	}
}
