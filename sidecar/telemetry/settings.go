// Package telemetry is what is told of calls, and to whom: the settings of the access log, of traces, of captures, and what models cost.
// It is pure: the controller puts together the settings of a namespace with it, the webhook judges those of the installation, and the
// sidecar reads what the controller wrote.
package telemetry

import "time"

// Settings are those of one namespace, or of the installation. They do not change once they are made. The JSON form is what the controller
// writes into v1beta1.KeysSecret under v1beta1.TelemetryEntry; the YAML form of the same is what people write into the ConfigMap
// v1beta1.Telemetry, where there is no capture.
type Settings struct {
	AccessLog AccessLog `json:"accessLog"`
	Traces    Traces    `json:"traces"`
	Prices    Prices    `json:"prices"`
	Capture   *Capture  `json:"capture,omitempty"` // nil: none
}

// Level is which requests the access log has a line for.
type Level string

// The levels of the access log.
const (
	All    Level = "all"    // every request
	Errors Level = "errors" // those that failed, were refused, retried or cut
	Off    Level = "off"    // none
)

// AccessLog is which requests get a line.
type AccessLog struct {
	Level  Level   `json:"level"`  // default All
	Sample float64 `json:"sample"` // the share of the requests without a fault that get one, 0 to 1; default 1. Those with a fault always do.
}

// Traces is where spans are sent.
type Traces struct {
	// Endpoint is the base URL of a collector that takes OTLP over HTTP, such as http://otel-collector.observability:4318; /v1/traces is
	// appended, as OTEL_EXPORTER_OTLP_ENDPOINT has it. Empty: no traces, and W3C headers pass as they are.
	Endpoint string `json:"endpoint,omitempty"`
	// Sample is the share of the requests that a trace begins with, 0 to 1; default 0.01. Where the app says by a traceparent header whether
	// its trace is recorded, that holds.
	Sample float64 `json:"sample"`
	// Headers are sent to the collector, such as Authorization. Their values are secrets.
	Headers map[string]string `json:"headers,omitempty"`
	// CABundle is PEM that verifies a collector with https beside the system's authorities.
	CABundle string `json:"caBundle,omitempty"`
}

// Prices are what models cost.
type Prices struct {
	Currency string  `json:"currency,omitempty"` // default USD; three capital letters (ISO 4217)
	Models   []Price `json:"models,omitempty"`   // the first that fits counts

	index *priceIndex // nil: they are looked at one by one
}

// Price is what a million tokens of a model cost.
type Price struct {
	Provider string   `json:"provider,omitempty"` // NAMESPACE/NAME of the LLMProvider, or its NAME; empty: all
	Model    string   `json:"model"`              // the name, in which * stands for any characters
	Input    float64  `json:"input"`
	Cached   *float64 `json:"cached,omitempty"` // of input tokens that the provider had in its cache; nil: as Input
	Output   float64  `json:"output"`
}

// Capture is the time in which prompts and answers are in the access log.
type Capture struct {
	Until  time.Time `json:"until"`
	Sample float64   `json:"sample"` // the share of the requests, 0 to 1; default 0.01
	Bytes  int       `json:"bytes"`  // of each of prompt and answer; default 2048, at most 16384
}

// The defaults of Settings.
const (
	DefaultTraceSample   = 0.01
	DefaultCaptureSample = 0.01
	DefaultCaptureBytes  = 2048
	MaxCaptureBytes      = 16384
	DefaultCurrency      = "USD"
)

// Default gives the settings where nobody says anything: a line for every request, no traces, no prices.
func Default() *Settings {
	return &Settings{AccessLog: AccessLog{Level: All, Sample: 1}, Traces: Traces{Sample: DefaultTraceSample}, Prices: Prices{Currency: DefaultCurrency}}
}
