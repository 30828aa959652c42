package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// accessState is what the last pass found out about a namespace.
type accessState struct {
	leaving bool            // it has lost its label, and still has pods
	codes   map[string]bool // of its troubles
	expires time.Time       // its token; zero where it has none
	passed  time.Time       // when a pass last had no error; before the first one, when the namespace was seen first
}

// accessGauge is the metrics of the keeper. Only the leader keeps, so only the leader counts.
type accessGauge struct {
	namespaces, troubles, expiry, pass *prometheus.Desc

	mu           sync.Mutex
	byNamespace  map[string]accessState
	installation map[string]bool // codes of what is wrong with its own settings
	reported     map[string]bool // codes: what was there once and is no more counts 0, and is not missing
}

func newAccessGauge() *accessGauge {
	return &accessGauge{
		namespaces: prometheus.NewDesc("remora_namespaces",
			"Namespaces whose sidecars are given access: kept, or leaving (without the label, until their last injected pod ends).", []string{"state"}, nil),
		troubles: prometheus.NewDesc("remora_namespace_problems",
			"Namespaces that do not have all that their sidecars need, by code.", []string{"code"}, nil),
		expiry: prometheus.NewDesc("remora_token_expiry_seconds",
			"Time until the first of the sidecars' tokens expires, of those in use. Below half of --token-life something keeps it from being renewed.", nil, nil),
		pass: prometheus.NewDesc("remora_pass_age_seconds",
			"Time since a namespace was last made as it should be without an error, of the one where that is longest ago. Each is looked at every 5 minutes at least.", nil, nil),
		byNamespace: map[string]accessState{}, reported: map[string]bool{requestFailed: true, foreignObject: true, keysTooLarge: true, telemetryInvalid: true},
	}
}

// show lets the gauge be asked until ctx ends. The manager calls it on the leader.
func (g *accessGauge) show(ctx context.Context) error {
	if err := metrics.Registry.Register(g); err != nil {
		return fmt.Errorf("the metrics of access: %w", err)
	}
	<-ctx.Done()
	metrics.Registry.Unregister(g)
	return nil
}

func (g *accessGauge) set(namespace string, s accessState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.passed = g.byNamespace[namespace].passed; s.passed.IsZero() {
		s.passed = time.Now()
	}
	g.byNamespace[namespace] = s
}

// succeed notes that a namespace that is kept needs nothing more.
func (g *accessGauge) succeed(namespace string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, kept := g.byNamespace[namespace]; kept {
		s.passed = time.Now()
		g.byNamespace[namespace] = s
	}
}

// fail adds to what is known of a namespace that a request failed.
func (g *accessGauge) fail(namespace string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.byNamespace[namespace]
	codes := map[string]bool{requestFailed: true}
	for code := range s.codes {
		codes[code] = true
	}
	s.codes = codes
	if s.passed.IsZero() {
		s.passed = time.Now()
	}
	g.byNamespace[namespace] = s
}

// setInstallation takes down what is wrong with the installation's own settings. It counts as one more namespace.
func (g *accessGauge) setInstallation(codes map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.installation = codes
}

func (g *accessGauge) forget(namespace string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.byNamespace, namespace)
}

// Describe is for the registry.
func (g *accessGauge) Describe(to chan<- *prometheus.Desc) {
	to <- g.namespaces
	to <- g.troubles
	to <- g.expiry
	to <- g.pass
}

// Collect is for the registry.
func (g *accessGauge) Collect(to chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	states, codes := map[string]int{"kept": 0, "leaving": 0}, map[string]int{}
	var first, oldest time.Time
	for code := range g.reported {
		codes[code] = 0
	}
	for code := range g.installation {
		codes[code]++
		g.reported[code] = true
	}
	for _, s := range g.byNamespace {
		if s.leaving {
			states["leaving"]++
		} else {
			states["kept"]++
		}
		for code := range s.codes {
			codes[code]++
			g.reported[code] = true
		}
		if !s.expires.IsZero() && (first.IsZero() || s.expires.Before(first)) {
			first = s.expires
		}
		if oldest.IsZero() || s.passed.Before(oldest) {
			oldest = s.passed
		}
	}
	for state, n := range states {
		to <- prometheus.MustNewConstMetric(g.namespaces, prometheus.GaugeValue, float64(n), state)
	}
	for code, n := range codes {
		to <- prometheus.MustNewConstMetric(g.troubles, prometheus.GaugeValue, float64(n), code)
	}
	if !first.IsZero() {
		to <- prometheus.MustNewConstMetric(g.expiry, prometheus.GaugeValue, time.Until(first).Seconds())
	}
	if !oldest.IsZero() {
		to <- prometheus.MustNewConstMetric(g.pass, prometheus.GaugeValue, time.Since(oldest).Seconds())
	}
}
