package otlp

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace"
	"remora.dev/remora/test/collector"
)

// rig is an exporter, what it logs, and what it counts.
type rig struct {
	*Exporter
	t       *testing.T
	counted *metrics.Set

	mu    sync.Mutex
	lines []string
}

var pod = launch.Identity{Pod: "sleep-7d9", Namespace: "demo", Workload: "Deployment/sleep", ServiceAccount: "sleeper", Node: "node-1"}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, counted: metrics.New()}
	log := funcr.New(func(_, args string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lines = append(r.lines, args)
	}, funcr.Options{})
	r.Exporter = New(Options{Identity: pod, Version: "1.2.3", Log: log, Metrics: r.counted})
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		r.Shutdown(ended)
	})
	return r
}

// logged gives the lines so far.
func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// counts expects so many spans that were sent, and dropped for a reason; none for all other reasons.
func (r *rig) counts(sent int, reason string, dropped int) {
	r.t.Helper()
	if got := r.counted.SpansSent().Get(); got != uint64(sent) {
		r.t.Errorf("%d spans are sent, want %d", got, sent)
	}
	for _, known := range []string{droppedQueueFull, droppedRefused, droppedUnreachable, droppedInvalid, droppedShutdown} {
		want := 0
		if known == reason {
			want = dropped
		}
		if got := r.counted.SpansDropped(known).Get(); got != uint64(want) {
			r.t.Errorf("%d spans are dropped as %s, want %d", got, known, want)
		}
	}
}

// flush has all that waits sent.
func (r *rig) flush() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	r.Shutdown(ctx)
}

func collecting(t *testing.T, o collector.Options) *collector.Collector {
	t.Helper()
	c, err := collector.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func to(endpoint string) *telemetry.Settings {
	s := telemetry.Default()
	s.Traces.Endpoint = endpoint
	return s
}

// sampled gives the record of a request that ended well at the first attempt: two spans.
func sampled() *record.Record {
	c := trace.New(true)
	start := time.Now()
	return &record.Record{
		Start: start, Method: "POST", Host: "demo-llm-server", Path: "/v1/chat/completions", Operation: "chat", Inference: true,
		Provider: routing.Ref{Kind: "LLMProvider", Namespace: "demo", Name: "qwen"}, Endpoint: "dashscope.aliyuncs.com:443",
		RequestModel: "qwen-turbo", Status: 200, Total: time.Second, Trace: c,
		Usage:    record.Usage{Input: 7, Output: 3, Reported: true},
		Attempts: []record.Attempt{{Start: start, Span: c.Child().Span, Provider: routing.Ref{Kind: "LLMProvider", Namespace: "demo", Name: "qwen"}, Model: "qwen-turbo", Duration: time.Second, Status: 200}},
	}
}

const spansOfSampled = 2

// bubble runs f with a clock of its own, and an exporter that reaches the collector by a network in memory.
func bubble(t *testing.T, f func(r *rig, c *collector.Collector, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
		c := collecting(t, collector.Options{Listener: n})
		r := newRig(t)
		r.dial = n.dial
		f(r, c, n)
	})
}

// network is a listener in memory.
type network struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	gone bool
	made int
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	gone := n.gone
	n.made++
	n.mu.Unlock()
	if gone {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("connection refused")}
	}
	ours, theirs := net.Pipe()
	select {
	case n.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// leave has further connections refused, or not.
func (n *network) leave(gone bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = gone
}

func (n *network) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.made
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4318} }

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}
