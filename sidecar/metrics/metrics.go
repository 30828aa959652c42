// Package metrics counts what the sidecar does, for Prometheus. Label values come from the configuration and from
// closed lists, never from what an app or a provider says, so that the number of series is bounded.
package metrics

import (
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// Set holds the counters of one sidecar. Make it with New. All its methods may be called from any goroutine. Those that
// give counters put together their names: who needs some for each request keeps them.
type Set struct {
	set *metrics.Set

	mu      sync.Mutex
	servers map[string]*Servers
}

// New makes an empty set.
func New() *Set { return &Set{set: metrics.NewSet()} }

// Call is what the calls of one series have in common.
type Call struct {
	Provider  string // NAMESPACE/NAME of the LLMProvider
	Model     string // from the configuration; empty where it is the app's own choice
	Operation string // routing.Operation.Name, or "other"
}

func (c Call) labels() string {
	return fmt.Sprintf("provider=%s,model=%s,operation=%s", strconv.Quote(c.Provider), strconv.Quote(c.Model), strconv.Quote(c.Operation))
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
	return s.set.GetOrCreateCounter(`remora_failures_total{code=` + strconv.Quote(code) + `}`)
}

// Retries counts attempts that followed a failed one, by the failed one's provider and code.
func (s *Set) Retries(provider, code string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_retries_total{provider=` + strconv.Quote(provider) + `,code=` + strconv.Quote(code) + `}`)
}

// RetriesWithheld counts attempts that were not made because the retry budget was spent.
func (s *Set) RetriesWithheld(provider string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_retries_withheld_total{provider=` + strconv.Quote(provider) + `}`)
}

// Ejections counts how often a provider was left alone for a while.
func (s *Set) Ejections(provider string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_ejections_total{provider=` + strconv.Quote(provider) + `}`)
}

// MirrorsDropped counts calls that were not copied for a mirror that they were to be copied for, since their bodies are too long, or too
// many copies were under way.
func (s *Set) MirrorsDropped(target string) *metrics.Counter {
	return s.set.GetOrCreateCounter(`remora_mirrors_dropped_total{target=` + strconv.Quote(target) + `}`)
}

// Gauge shows what value gives when it is asked. The name has no labels; a second gauge of that name panics.
func (s *Set) Gauge(name string, value func() float64) { s.set.NewGauge(name, value) }

// Write writes all of it in Prometheus' text form, and what the process needs: goroutines, memory, files, CPU, under
// the names that Prometheus' own clients give them.
func (s *Set) Write(w io.Writer) {
	s.set.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
	metrics.WriteFDMetrics(w)
}
