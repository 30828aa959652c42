// Package otlp sends spans to a collector, over OTLP/HTTP (https://opentelemetry.io/docs/specs/otlp/). A collector that is slow or away costs
// spans, which are counted, and nothing else.
package otlp

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/launch"
	own "remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/telemetry"
)

// Why spans are dropped: the values of the label reason.
const (
	droppedQueueFull   = "queue_full"  // more came than the collector takes
	droppedRefused     = "refused"     // the collector said that it does not take them, or said to the end that it cannot
	droppedUnreachable = "unreachable" // the collector did not answer, or not by HTTP
	droppedInvalid     = "invalid"     // the settings cannot be used
	droppedShutdown    = "shutdown"    // the sidecar ended first
)

// Options is what an Exporter needs.
type Options struct {
	Identity launch.Identity
	Version  string // of the sidecar
	Log      logr.Logger
	Metrics  *own.Set
}

// Exporter sends spans. Make it with New. It has a goroutine only while there are spans that wait.
type Exporter struct {
	log      logr.Logger
	agent    string // of the User-Agent header
	envelope *envelope
	encoders sync.Pool
	dial     func(ctx context.Context, network, address string) (net.Conn, error)

	sent    *metrics.Counter
	dropped map[string]*metrics.Counter // by reason

	life context.Context // of requests to collectors
	kill context.CancelFunc
	wake chan struct{} // there may be no more reason to wait for more spans

	mu      sync.Mutex
	targets [2]*target // the newest, and the one before: requests that began with older settings end among those with newer ones
	queue   queue
	ended   chan struct{} // of the goroutine; nil: there is none
	closing chan struct{} // closed by Shutdown
	closed  bool

	trouble trouble // of the goroutine
}

// New makes an exporter that does nothing until a record with a sampled trace comes.
func New(o Options) *Exporter {
	e := &Exporter{
		log: o.Log, agent: "remora-sidecar/" + o.Version, envelope: newEnvelope(o.Identity, o.Version),
		encoders: sync.Pool{New: func() any { return new(encoder) }},
		dial:     (&net.Dialer{Timeout: connectTime, Resolver: &net.Resolver{PreferGo: true}}).DialContext,
		sent:     o.Metrics.SpansSent(), dropped: map[string]*metrics.Counter{},
		wake: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	e.life, e.kill = context.WithCancel(context.Background())
	for _, reason := range []string{droppedQueueFull, droppedRefused, droppedUnreachable, droppedInvalid, droppedShutdown} {
		e.dropped[reason] = o.Metrics.SpansDropped(reason)
	}
	return e
}

// Record takes the spans of a request, if its trace is sampled, and sends them soon to where the settings say.
func (e *Exporter) Record(r *record.Record, s *telemetry.Settings) {
	if !r.Trace.Sampled || s.Traces.Endpoint == "" {
		return
	}
	spans := e.encoders.Get().(*encoder)
	defer e.encoders.Put(spans)
	spans.encode(r, s)

	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		e.dropped[droppedShutdown].Add(spans.count)
	case !e.queue.add(e.target(s), spans):
		e.dropped[droppedQueueFull].Add(spans.count)
	case e.ended == nil:
		e.ended = make(chan struct{})
		go e.run(e.ended)
	case e.queue.full():
		e.nudge()
	}
}

func (e *Exporter) nudge() {
	select {
	case e.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// target gives where settings have spans sent. e.mu is held.
func (e *Exporter) target(s *telemetry.Settings) *target {
	for _, t := range e.targets {
		if t != nil && t.is(s) {
			return t
		}
	}
	e.targets = [2]*target{newTarget(s, e.dial), e.targets[0]}
	return e.targets[0]
}

// run sends what waits, and ends when nothing does.
func (e *Exporter) run(ended chan struct{}) {
	defer close(ended)
	for {
		e.mu.Lock()
		b := e.queue.first()
		if b == nil {
			e.ended = nil
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		e.gather(b)
		e.deliver(b)
		e.mu.Lock()
		e.queue.remove()
		e.mu.Unlock()
	}
}

// gather waits until a batch is full, or old enough, and has it take no more spans.
func (e *Exporter) gather(b *batch) {
	timer := time.NewTimer(time.Until(b.born.Add(batchTime)))
	defer timer.Stop()
	for old := false; ; {
		e.mu.Lock()
		if old || e.closed || e.queue.full() {
			b.sealed = true
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		select {
		case <-timer.C:
			old = true
		case <-e.wake:
		case <-e.closing:
		}
	}
}

// Shutdown sends what waits, if ctx lets it. What is recorded later is dropped.
func (e *Exporter) Shutdown(ctx context.Context) {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.closing)
	}
	ended := e.ended
	e.mu.Unlock()
	if ended != nil {
		select {
		case <-ended:
		case <-ctx.Done():
			e.kill()
			<-ended
		}
	}
	e.kill()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.targets {
		if t != nil {
			t.transport.CloseIdleConnections()
		}
	}
}

// isClosing tells whether Shutdown has been called.
func (e *Exporter) isClosing() bool {
	select {
	case <-e.closing:
		return true
	default:
		return false
	}
}
