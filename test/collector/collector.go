// Package collector is a collector of traces for tests, benchmarks and the demo. It takes OTLP over HTTP and reads it with OpenTelemetry's own
// types, strictly: what it took, every collector takes.
package collector

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"

	api "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Path is where spans are sent, below URL.
const Path = "/v1/traces"

// maxRequest is more than anyone sends at once, in bytes.
const maxRequest = 4 << 20

// Options of a collector. The zero value listens without TLS on a free port of 127.0.0.1.
type Options struct {
	Addr        string           // host:port
	Certificate *tls.Certificate // with it, TLS is spoken
	Listener    net.Listener     // in place of Addr
}

// Request is one that came, with whatever answer.
type Request struct {
	Header http.Header
	Spans  int
	Bytes  int
}

// Collector holds all that was sent to it. Make it with Start.
type Collector struct {
	URL string

	server *http.Server

	mu       sync.Mutex
	spans    []Span
	requests []Request
	faults   []string
	instead  http.HandlerFunc
	changed  chan struct{} // closed and made anew when something came
}

// Start runs a collector until Close.
func Start(o Options) (*Collector, error) {
	l := o.Listener
	if l == nil {
		addr := o.Addr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		var err error
		if l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr); err != nil {
			return nil, err
		}
	}
	c := &Collector{URL: "http://" + l.Addr().String(), changed: make(chan struct{})}
	if o.Certificate != nil {
		c.URL = "https://" + l.Addr().String()
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*o.Certificate}, MinVersion: tls.VersionTLS12})
	}
	c.server = &http.Server{Handler: c}
	go func() { _ = c.server.Serve(l) }()
	return c, nil
}

// Close ends it, with all its connections.
func (c *Collector) Close() { _ = c.server.Close() }

// Instead has requests answered by h, which takes no spans; nil: they are taken again.
func (c *Collector) Instead(h http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instead = h
}

// ServeHTTP takes a request.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	instead := c.instead
	c.mu.Unlock()
	var spans []Span
	request := Request{Header: r.Header.Clone()}
	body, err := read(r)
	request.Bytes = len(body)
	if err == nil {
		spans, err = decode(r, body)
	}
	request.Spans = len(spans)
	if instead != nil {
		spans = nil
	}
	c.mu.Lock()
	c.requests = append(c.requests, request)
	c.spans = append(c.spans, spans...)
	if err != nil {
		c.faults = append(c.faults, err.Error())
	}
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()

	if instead != nil {
		instead(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, _ := proto.Marshal(&api.ExportTraceServiceResponse{})
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer)
}

func read(r *http.Request) ([]byte, error) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		body = unzipped
	}
	content, err := io.ReadAll(io.LimitReader(body, maxRequest+1))
	if len(content) > maxRequest {
		return nil, errors.New("the request is too large")
	}
	return content, err
}

func decode(r *http.Request, body []byte) ([]Span, error) {
	if r.Method != http.MethodPost || r.URL.Path != Path {
		return nil, fmt.Errorf("%s %s: spans come by POST %s", r.Method, r.URL.Path, Path)
	}
	if kind := r.Header.Get("Content-Type"); kind != "application/x-protobuf" {
		return nil, fmt.Errorf("the content type is %q", kind)
	}
	var message api.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &message); err != nil {
		return nil, err
	}
	return spansOf(&message)
}

// Spans gives all that came so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Requests gives all that came so far.
func (c *Collector) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Faults tells what was wrong with requests that came so far.
func (c *Collector) Faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.faults)
}

// Await waits until enough is true of the collector, which it asks after each request that came.
func (c *Collector) Await(ctx context.Context, enough func() bool) error {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if enough() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %d spans came in %d requests, with faults %q", ctx.Err(), len(c.Spans()), len(c.Requests()), c.Faults())
		}
	}
}
