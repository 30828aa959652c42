package desync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

// seen is a request as a server understood it.
type seen struct {
	Marker string `json:"marker"` // the header X-Marker
	Method string `json:"method"`
	Target string `json:"target"`
	Host   string `json:"host"`
	Length string `json:"length"` // the header Content-Length
	Coding string `json:"coding"` // the header Transfer-Encoding
	Key    string `json:"key"`    // the header Authorization
	Status string `json:"status"`
	Body   string `json:"body"` // the size of what it took for the body, and the marker in it
}

// told is what Body says of a body.
func told(body []byte) string { return fmt.Sprintf("%d %s", len(body), markerOf(string(body))) }

// server is one that the proxy's requests arrive at.
type server struct {
	name string
	// take gives the requests since the last call, once there are at least n.
	take func(t *testing.T, n int) []seen
}

// journal collects what a server saw.
type journal struct {
	mu      sync.Mutex
	changed *sync.Cond
	all     []seen
}

func newJournal() *journal {
	j := &journal{}
	j.changed = sync.NewCond(&j.mu)
	return j
}

func (j *journal) add(s seen) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all = append(j.all, s)
	j.changed.Broadcast()
}

func (j *journal) take(t *testing.T, n int) []seen {
	t.Helper()
	late := false
	timer := time.AfterFunc(limit, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		late = true
		j.changed.Broadcast()
	})
	defer timer.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.all) < n && !late {
		j.changed.Wait()
	}
	if late {
		t.Errorf("%d requests arrived, want %d", len(j.all), n)
	}
	all := j.all
	j.all = nil
	return all
}

// ServeHTTP answers as a model does, with the marker of the body, and says in X-Body what it got.
func (j *journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was not whole, and is no request
	}
	length := ""
	if r.ContentLength >= 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	j.add(seen{
		Marker: r.Header.Get("X-Marker"), Method: r.Method, Target: r.RequestURI, Host: r.Host, Length: length,
		Coding: strings.Join(r.TransferEncoding, ","), Key: r.Header.Get("Authorization"), Status: "200", Body: told(body),
	})
	w.Header().Set("X-Body", told(body))
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"<%s>"}}]}`, markerOf(string(body)))
}

func startServer(t *testing.T, name string) server {
	t.Helper()
	switch name {
	case "nginx":
		return startNginx(t)
	case "nethttp":
		j := newJournal()
		serveHTTP(t, "tcp", "127.0.0.3:80", j)
		return server{name, j.take}
	}
	s, err := llmserver.Start(llmserver.Options{
		Addr: "127.0.0.4:0", PlainAddr: "127.0.0.4:80", Hosts: []string{"llmserver.example.com", "llmserver.foreign.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := &provider{Server: s, taken: map[int]bool{}}
	return server{name, p.take}
}

// provider is an llmserver of which each request is taken once.
type provider struct {
	*llmserver.Server
	taken map[int]bool // by the number in the order of arrival
	ended int          // how many of them have
}

// take leaves out what was not whole, which has no status.
func (p *provider) take(t *testing.T, n int) (all []seen) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		requests, err := p.AwaitEnded(ctx, p.ended)
		if err != nil {
			t.Error(err)
			return all
		}
		for i, r := range requests {
			if r.Ended.IsZero() || p.taken[i] {
				continue
			}
			p.taken[i] = true
			if r.Status != 0 {
				all = append(all, seenBy(r))
			}
		}
		if p.ended = len(p.taken); len(all) >= n {
			return all
		}
		p.ended++ // there is at least one more to come
	}
}

func seenBy(r llmserver.Request) seen {
	target := r.Path
	if r.RawQuery != "" {
		target += "?" + r.RawQuery
	}
	return seen{
		Marker: r.Header.Get("X-Marker"), Method: r.Method, Target: target, Host: r.Host, Length: r.Header.Get("Content-Length"),
		Coding: codingOf(r), Key: r.Header.Get("Authorization"), Status: strconv.Itoa(r.Status), Body: told(r.Body),
	}
}

// codingOf looks at the lines as they were sent: net/http takes the header away.
func codingOf(r llmserver.Request) string {
	for _, line := range r.RawHeader {
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Transfer-Encoding") {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func serveHTTP(t *testing.T, network, address string, h http.Handler) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: limit}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// startNginx runs nginx in front of a server that answers. What nginx itself understood comes in its log, a datagram
// for each request, so that nobody has to look into a file until it is there.
func startNginx(t *testing.T) server {
	t.Helper()
	folder := t.TempDir()
	serveHTTP(t, "unix", filepath.Join(folder, "model"), newJournal())
	j := newJournal()
	log, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(folder, "log"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	go func() {
		for buffer := make([]byte, 64<<10); ; {
			n, err := log.Read(buffer)
			if err != nil {
				return
			}
			_, line, _ := bytes.Cut(buffer[:n], []byte("nginx: "))
			var s seen
			if err := json.Unmarshal(line, &s); err != nil {
				s.Marker = fmt.Sprintf("a line of the log: %v: %q", err, buffer[:n])
			}
			if s.Status != "400" || s.Body != "" || s.Marker == "" { // else it was not whole, and nginx did not get to its end
				j.add(s)
			}
		}
	}()
	config := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(nginxConfig, "FOLDER", folder)), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	path, err := exec.LookPath("/usr/sbin/nginx") // where Debian has it, which is not everybody's PATH
	if err != nil {
		path = "nginx"
	}
	command := exec.Command(path, "-c", config, "-p", folder)
	command.Stderr = &stderr
	if err := command.Start(); err != nil {
		t.Fatalf("start nginx (.ci/prerequisites test installs it): %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
	})
	awaitPort(t, "127.0.0.2:80", ended, &stderr)
	return server{"nginx", j.take}
}

// awaitPort waits for nginx, which tells nobody when it listens.
func awaitPort(t *testing.T, address string, ended <-chan error, stderr *bytes.Buffer) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("nginx ended: %v\n%s", err, stderr)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %v", err)
		}
	}
}

const nginxConfig = `
daemon off;
master_process off;
pid FOLDER/pid;
error_log FOLDER/errors info;
events { worker_connections 512; }
http {
  log_format seen escape=json '{"marker":"$http_x_marker","method":"$request_method","target":"$request_uri","host":"$http_host",'
    '"length":"$http_content_length","coding":"$http_transfer_encoding","key":"$http_authorization","status":"$status","body":"$upstream_http_x_body"}';
  access_log syslog:server=unix:FOLDER/log,nohostname,tag=nginx seen;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  keepalive_requests 100000;
  server {
    listen 127.0.0.2:80;
    location / {
      proxy_pass http://unix:FOLDER/model;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
    }
  }
}
`
