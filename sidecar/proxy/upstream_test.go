package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// keeping is a provider without TLS and without a key, at 127.0.0.5:8080.
var keeping = strings.NewReplacer("  configs: {defaultConfig: {openAIConfig: {apiKey: sk-raw-0123456789}}}\n", "", ", allowInsecureKey: true", "").Replace(rawConfig("\n    retries: {attempts: 0}"))

// hammer sends requests with pauses about as long as the provider keeps a connection, and wants each to be answered.
func hammer(t *testing.T, r *rig, host string, n int, pause time.Duration) {
	t.Helper()
	var asking sync.WaitGroup
	const apps = 8
	for range apps {
		asking.Go(func() {
			for range n / apps {
				got, err := r.try("POST", "http://"+host, prompt)
				if err != nil || got.status != 200 {
					t.Errorf("%d %s %v", got.status, got.body, err)
				}
				if pause > 0 {
					<-time.After(rand.N(2 * pause))
				}
			}
		})
	}
	asking.Wait()
}

func TestNoRequestMeetsTheEndOfAKeptConnectionNorArrivesTwice(t *testing.T) {
	const requests = 2000
	t.Run("net/http", func(t *testing.T) {
		r := newRig(t, keeping)
		l, err := net.Listen("tcp", rawHost+":8080")
		if err != nil {
			t.Fatal(err)
		}
		var served, conns atomic.Int64
		server := &http.Server{
			IdleTimeout: 2 * time.Millisecond,
			ConnState: func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					conns.Add(1)
				}
			},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				_, _ = io.Copy(io.Discard, q.Body)
				served.Add(1)
				_, _ = io.WriteString(w, "{}")
			}),
		}
		ended := make(chan error)
		go func() { ended <- server.Serve(l) }()
		hammer(t, r, "raw", requests, 2*time.Millisecond)
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if n := served.Load(); n != requests {
			t.Errorf("%d requests were served, of %d", n, requests)
		}
		t.Logf("%d requests on %d connections", requests, conns.Load())
		if n := conns.Load(); n < 20 || n > requests*9/10 {
			t.Errorf("%d connections: the end of one was hardly ever near", n)
		}
	})
	t.Run("nginx", func(t *testing.T) {
		r := newRig(t, keeping)
		log := nginx(t, `
    server {
      listen `+rawHost+`:8080;
      keepalive_timeout 2ms;
      location / { return 200 "{}"; }
    }`)
		hammer(t, r, "raw", requests, 2*time.Millisecond)
		served, err := os.ReadFile(log())
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(served), "\n"); n != requests {
			t.Errorf("%d requests were served, of %d", n, requests)
		}
	})
	t.Run("closed without a word", func(t *testing.T) {
		r := newRig(t, providers+route("once", "\n  - retries: {attempts: 0}\n    backendRefs: [{providerHost: "+qwen+"}]"))
		r.provider.Script("", llmserver.Fault{EarlyClose: true, Times: -1})
		hammer(t, r, "once", requests, 0)
		if n := r.provider.Received(); n != requests {
			t.Errorf("%d requests were served, of %d", n, requests)
		}
	})
}

// nginx runs a server with what is in its block http, and gives a function that ends it and names its access log.
func nginx(t *testing.T, http string) (stop func() string) {
	t.Helper()
	dir := t.TempDir()
	config, access := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "access.log")
	text := fmt.Sprintf(`
daemon off;
worker_processes 1;
user root;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 512; }
http {
  access_log %[2]s;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  %[3]s
}
`, dir, access, http)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "nginx", "-c", config, "-e", filepath.Join(dir, "error.log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	end := func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	t.Cleanup(func() { once.Do(end) })
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		c, err := net.Dial("tcp", rawHost+":8080")
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Fatalf("nginx does not listen: %s", text)
		}
	}
	return func() string {
		once.Do(end)
		return access
	}
}

// A provider that has had a request for some time has worked on it: whatever becomes of it, it gets no other.
func TestAProviderThatHasWorkedOnARequestDoesNotGetItAgain(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"and closes": func(*net.TCPConn) {},
		"and resets": func(c *net.TCPConn) { _ = c.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, keeping)
			h := serve(t, func(n int, c *net.TCPConn, _ *http.Request) bool {
				if n == 0 {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					return true
				}
				<-time.After(400 * time.Millisecond)
				end(c)
				return false
			})
			if got := r.do("POST", "http://raw", prompt); got.status != 200 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			r.do("POST", "http://raw", prompt).wantError(t, 502, routing.UpstreamReset)
			if h.count() != 2 {
				t.Errorf("the provider got %d requests", h.count())
			}
		})
	}
}

// What is no inference may have consequences, so it is not sent again where it may have been read.
func TestWhatMayHaveConsequencesIsSentOnce(t *testing.T) {
	r := newRig(t, keeping)
	h := serve(t, func(n int, c *net.TCPConn, _ *http.Request) bool {
		if n > 0 {
			_ = c.SetLinger(0)
			return false
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		return true
	})
	const path = "http://raw/v1/fine_tuning/jobs"
	if got := r.do("POST", path, "{}"); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	r.do("POST", path, "{}").wantError(t, 502, routing.UpstreamReset)
	if h.count() != 2 {
		t.Errorf("the provider got %d requests", h.count())
	}
}
