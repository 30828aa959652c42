// Package metrics counts what the sidecar does, for Prometheus. Label values come from the configuration and from closed lists, so that the
// number of series is bounded. Only names of models come from apps and providers too, and of those no more than a hundred each.
package metrics

import (
	"fmt"
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// Set holds the counters of one sidecar. Make it with New. All its methods may be called from any goroutine. Those that
// give counters put together their names: who needs some for each request keeps them.
type Set struct {
	set   *metrics.Set
	calls *calls

	mu      sync.Mutex
	servers map[string]*Servers
	infos   []info
}

// New makes an empty set.
func New() *Set { return &Set{set: metrics.NewSet(), calls: newCalls()} }

// Call is what the calls of one series have in common.
type Call struct {
	Provider  string // NAMESPACE/NAME of the LLMProvider
	Model     string // from the configuration; empty where it is the app's own choice
	Operation string // routing.Operation.Name, or "other"
}

func (c Call) labels() string {
	return fmt.Sprintf("provider=%s,model=%s,operation=%s", quote(c.Provider), quote(c.Model), quote(c.Operation))
}

// Calls counts the calls of one series. The cached tokens are some of the input's, the reasoning tokens some of the output's.
type Calls struct {
	Requests *metrics.Counter // answered by the provider, whatever the status
	Input    *metrics.Counter // as the provider reported them
	Output   *metrics.Counter
	Cached   *metrics.Counter
	Reasoned *metrics.Counter

	EstimatedInput  *metrics.Counter // of answers that were cut before the provider reported, and of those without a report
	EstimatedOutput *metrics.Counter
	Estimated       *metrics.Counter // such answers
	Unreported      *metrics.Counter // answers that were complete without a report
}

// Calls gives the counters of a series.
func (s *Set) Calls(c Call) *Calls {
	l := c.labels()
	tokens := func(kind, precision string) *metrics.Counter {
		return s.set.GetOrCreateCounter(fmt.Sprintf(`remora_tokens_total{%s,type=%q,precision=%q}`, l, kind, precision))
	}
	part := func(kind string) *metrics.Counter {
		return s.set.GetOrCreateCounter(fmt.Sprintf(`remora_token_parts_total{%s,type=%q}`, l, kind))
	}
	answers := func(usage string) *metrics.Counter {
		return s.set.GetOrCreateCounter(fmt.Sprintf(`remora_answers_without_usage_total{%s,reason=%q}`, l, usage))
	}
	return &Calls{
		Requests: s.set.GetOrCreateCounter("remora_requests_total{" + l + "}"),
		Input:    tokens("input", "exact"), Output: tokens("output", "exact"),
		Cached: part("cached"), Reasoned: part("reasoning"),
		EstimatedInput: tokens("input", "estimated"), EstimatedOutput: tokens("output", "estimated"),
		Estimated: answers("cut"), Unreported: answers("unreported"),
	}
}

// Failures counts failed requests by their code. code is one of package routing's.
func (s *Set) Failures(code string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_failures_total{code=` + quote(code) + `}`)
}

// Retries counts attempts that followed a failed one, by the failed one's provider and code.
func (s *Set) Retries(provider, code string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_retries_total{provider=` + quote(provider) + `,code=` + quote(code) + `}`)
}

// RetriesWithheld counts attempts that were not made because the retry budget was spent.
func (s *Set) RetriesWithheld(provider string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_retries_withheld_total{provider=` + quote(provider) + `}`)
}

// Ejections counts how often a provider was left alone for a while.
func (s *Set) Ejections(provider string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_ejections_total{provider=` + quote(provider) + `}`)
}

// MirrorsDropped counts calls that were not copied for a mirror that they were to be copied for, since their bodies are too long, or too
// many copies were under way.
func (s *Set) MirrorsDropped(target string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_mirrors_dropped_total{target=` + quote(target) + `}`)
}

// Gauge shows what value gives when it is asked. The name has no labels; a second gauge of that name panics.
func (s *Set) Gauge(name string, value func() float64) { s.set.NewGauge(name, value) }

// Spliced counts the connections that are none of Remora's business and are passed on as they are.
type Spliced struct {
	Connections, Sent, Received *metrics.Counter // Sent and Received are bytes, as the app sees it
}

// Spliced gives those counters.
func (s *Set) Spliced() *Spliced {
	return &Spliced{
		Connections: s.set.GetOrCreateCounter("remora_spliced_connections_total"),
		Sent:        s.set.GetOrCreateCounter(`remora_spliced_bytes_total{direction="sent"}`),
		Received:    s.set.GetOrCreateCounter(`remora_spliced_bytes_total{direction="received"}`),
	}
}

// SpansSent counts spans that a collector took.
func (s *Set) SpansSent() *metrics.Counter {
	return s.set.GetOrCreateCounter("remora_spans_sent_total")
}

// SpansDropped counts spans that no collector got; reason is one of a closed list.
func (s *Set) SpansDropped(reason string) *metrics.Counter {
	return s.set.GetOrCreateCounter("remora_spans_dropped_total{reason=" + quote(reason) + "}")
}
