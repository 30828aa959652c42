// Package desync_test sends what tears requests apart (RFC 9112, section 11.2) through the proxy to servers that others
// wrote: whatever the proxy lets pass must be, to each of them, the one request that the proxy took it for.
package desync_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/netns"
)

// The servers, each at an address of its own, under one name that a provider has and under one that is foreign.
var hosts = map[string]string{
	"nginx.example.com": "127.0.0.2", "nginx.foreign.example.com": "127.0.0.2",
	"nethttp.example.com": "127.0.0.3", "nethttp.foreign.example.com": "127.0.0.3",
	"llmserver.example.com": "127.0.0.4", "llmserver.foreign.example.com": "127.0.0.4",
	"raw.example.com": "127.0.0.5",
}

const (
	key = "sk-desync-0123456789"

	// limit ends a test that would otherwise hang; nothing waits for it.
	limit = 30 * time.Second
)

func TestMain(m *testing.M) {
	netns.Enter(hosts)
	os.Exit(m.Run())
}

// start runs a proxy with a provider for the host, whose server is plain HTTP on port 80, and gives its address.
func start(t *testing.T, host string) string {
	t.Helper()
	var o routing.Objects
	provider := fmt.Sprintf(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: it}
spec:
  host: %s
  tls: {mode: DISABLE, allowInsecureKey: true}
  configs: {defaultConfig: {openAIConfig: {apiKey: %s}}}
`, host, key)
	if _, err := o.Decode([]byte(provider), "default"); err != nil {
		t.Fatal(err)
	}
	table, problems := routing.Compile(o, &routing.Workload{Namespace: "default"})
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			t.Fatalf("%s %s", p.Object, p)
		}
	}
	store := snapshot.NewStore()
	p, err := proxy.New(proxy.Options{Store: store, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

// reply is an answer as the app reads it.
type reply struct {
	status int
	body   string
}

// app is a connection of the app's.
type app struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, address string) *app {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(limit))
	return &app{conn, bufio.NewReader(conn)}
}

// receive reads the next answer that is not an interim one.
func (a *app) receive() (reply, error) {
	for {
		response, err := http.ReadResponse(a.in, &http.Request{Method: http.MethodPost})
		if err != nil {
			return reply{}, err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return reply{}, err
		}
		if response.StatusCode >= 200 {
			return reply{response.StatusCode, string(body)}, nil
		}
	}
}

// all sends a text and reads answers until the proxy closes the connection. A deadline passed instead is an error.
func (a *app) all(text string) (replies []reply, err error) {
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(a, text) // it fails where the proxy has closed before it got all of it
		sent <- err
	}()
	for {
		r, err := a.receive()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			<-sent
			return replies, nil
		case err != nil:
			return replies, err
		}
		replies = append(replies, r)
	}
}

// prompt is the body of a request, which a model answers with the marker in it.
func prompt(marker string) string {
	return fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"<%s>"}]}`, marker)
}

// markerOf finds the marker in a body.
func markerOf(body string) string {
	_, rest, _ := strings.Cut(body, "<")
	marker, _, ok := strings.Cut(rest, ">")
	if !ok {
		return "no marker"
	}
	return marker
}
