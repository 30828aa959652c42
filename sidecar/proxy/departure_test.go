package proxy_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

func TestEveryWayOfLeavingEndsTheProvidersWork(t *testing.T) {
	leave := map[string]func(c *net.TCPConn){
		"half-close": func(c *net.TCPConn) { _ = c.CloseWrite() },
		"close":      func(c *net.TCPConn) { _ = c.Close() },
		"reset":      func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
		"close after a second request": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, last)
			_ = c.Close()
		},
	}
	for name, leave := range leave {
		for when, fault := range map[string]llmserver.Fault{
			"before the first byte": {Delay: time.Hour}, "mid-stream": {StallAfter: new(2)},
		} {
			t.Run(name+" "+when, func(t *testing.T) {
				r := newRig(t, providers)
				r.provider.Script("", fault)
				w := r.dial()
				body := streamed
				w.send(post("/", lengthOf(body), body))
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if _, err := r.provider.Await(ctx, 1); err != nil {
					t.Fatal(err)
				}
				if when == "mid-stream" {
					if _, err := w.in.ReadString('{'); err != nil {
						t.Fatal(err)
					}
				}
				leave(w.Conn.(*net.TCPConn))
				if _, err := r.provider.AwaitAborted(ctx); err != nil {
					t.Error("the provider goes on")
				}
			})
		}
	}
}

// full is a listener that accepts nothing and whose queue is full, so that dialling it waits.
func full(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{127, 0, 0, 5}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		c, err := net.DialTimeout("tcp", rawHost+":8080", 200*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue does not fill")
}

func TestLeavingEndsADial(t *testing.T) {
	r := newRig(t, rawConfig(""))
	full(t)
	w := r.dial()
	w.send("POST / HTTP/1.1\r\nHost: raw\r\n" + lengthOf(prompt) + "\r\n" + prompt)
	_ = w.Conn.(*net.TCPConn).CloseWrite()
	begun := time.Now()
	_, _ = io.Copy(io.Discard, w.in)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the dial went on for %s", took)
	}
}

func TestTheTimeOfARuleBoundsADial(t *testing.T) {
	r := newRig(t, rawConfig("\n    timeouts: {request: 300ms}"))
	full(t)
	r.do("POST", "http://raw", prompt).wantError(t, 504, routing.DeadlineExceeded)
}

func TestLeavingEndsAPauseBetweenAttempts(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script("", llmserver.Fault{Status: 429, RetryAfter: "5", Times: -1})
	w := r.dial()
	w.send(post("/", lengthOf(prompt), prompt))
	if _, err := r.provider.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_ = w.Conn.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, w.in)
	if took := time.Since(begun); took > 4*time.Second || r.provider.Received() != 1 {
		t.Errorf("%s, %d requests", took, r.provider.Received())
	}
}

// Connections to providers are used by one app after the other. Apps that leave at random moments must
// cost the others nothing, and nobody may get another one's answer.
func TestLeavingAppsDoNotDisturbTheOthers(t *testing.T) {
	r := newRig(t, rawConfig("\n    retries: {attempts: 0}"))
	serve(t, func(_ int, c *net.TCPConn, q *http.Request) bool {
		who := q.Header.Get("X-Who")
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(who), who)
		if _, err := io.WriteString(c, answer); err != nil {
			return false
		}
		if rand.N(4) == 0 {
			runtime.Gosched()
		}
		_, err := io.WriteString(c, "1\r\n.\r\n0\r\n\r\n")
		return err == nil
	})
	var failed atomic.Int32
	var running sync.WaitGroup
	for app := range 32 {
		running.Go(func() {
			for i := range 60 {
				who := fmt.Sprintf("%d-%d", app, i)
				leaving := app%2 == 0
				ctx, cancel := context.WithCancel(t.Context())
				if leaving {
					time.AfterFunc(rand.N(3*time.Millisecond), cancel)
				}
				resp, err := r.open(ctx, "POST", "http://raw", prompt, "X-Who", who)
				var b []byte
				if err == nil {
					b, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
				cancel()
				if err == nil && string(b) != who+"." || err != nil && !leaving {
					if failed.Add(1) < 5 {
						t.Errorf("%s got %q, %v", who, b, err)
					}
				}
			}
		})
	}
	running.Wait()
}

func TestConfigurationSwapsLoseNoRequest(t *testing.T) {
	r := newRig(t, providers)
	other := strings.ReplaceAll(providers, "caBundle", "") + route("demo-llm-server", "\n  - backendRefs: [{providerHost: api.moonshot.cn}]")
	without := strings.Replace(providers, "name: moonshot}\nspec:\n  host: api.moonshot.cn", "name: other}\nspec:\n  host: other.example.com", 1)
	stop := make(chan struct{})
	var running sync.WaitGroup
	var asked atomic.Int32
	answered := make(chan struct{})
	for range 8 {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := r.try("POST", "http://"+qwen, prompt)
				asked.Add(1)
				select {
				case answered <- struct{}{}:
				default:
				}
				if err != nil || got.status != 200 {
					t.Errorf("got %d %s %v", got.status, got.body, err)
					return
				}
			}
		})
	}
	for i := range 300 {
		r.apply([]string{providers, other, without}[i%3])
		select {
		case <-answered: // requests run between the swaps
		case <-time.After(10 * time.Second):
			t.Fatal("no request is answered any more")
		}
	}
	close(stop)
	running.Wait()
	if asked.Load() < 50 {
		t.Errorf("only %d requests ran meanwhile", asked.Load())
	}
}

func TestNothingIsLeftAfterShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("a proxy's life", func(t *testing.T) {
		r := newRig(t, providers)
		r.provider.Script(qwen, llmserver.Fault{StallAfter: new(1)}, llmserver.Fault{Delay: 300 * time.Millisecond})
		stuck := r.dial()
		stuck.send(post("/", lengthOf(streamed), streamed))
		if _, err := stuck.in.ReadString('{'); err != nil {
			t.Fatal(err)
		}
		slow := r.dial()
		slow.send(post("/", lengthOf(prompt), prompt))
		if _, err := r.provider.Await(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.proxy.Shutdown(ctx); err == nil {
			t.Error("the stream that was cut is not mentioned")
		}
		if got := slow.statuses(); fmt.Sprint(got) != "[200]" {
			t.Errorf("the request in flight: %v", got)
		}
		if _, err := io.Copy(io.Discard, stuck.in); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Error("the stream was not cut")
		}
		if c, err := net.Dial("tcp", r.addr); err == nil {
			_ = c.Close()
			t.Error("a new connection was accepted")
		}
	})
	for end := time.Now().Add(15 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
}
