package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"remora.dev/remora/apis/v1beta1"
)

// objectState is what remora_objects counts objects by.
type objectState struct {
	kind               string
	accepted, resolved bool
	code               string // why it is not accepted, else why not resolved, else empty
}

func newObjectState(kind string, conditions []metav1.Condition) objectState {
	s := objectState{kind: kind, accepted: true, resolved: true}
	if c := meta.FindStatusCondition(conditions, v1beta1.ConditionResolvedRefs); c != nil && c.Status == metav1.ConditionFalse {
		s.resolved, s.code = false, c.Reason
	}
	if c := meta.FindStatusCondition(conditions, v1beta1.ConditionAccepted); c != nil && c.Status == metav1.ConditionFalse {
		s.accepted, s.code = false, c.Reason
	}
	return s
}

// objectsGauge is the metric remora_objects. Only the leader judges, so only the leader counts.
type objectsGauge struct {
	description *prometheus.Desc

	mu          sync.Mutex
	byNamespace map[string]map[objectState]int
	reported    map[objectState]bool // what was there once and is no more counts 0, and is not missing
}

func newObjectsGauge() *objectsGauge {
	return &objectsGauge{
		description: prometheus.NewDesc("remora_objects",
			"LLMProviders and LLMRoutes, by whether they are accepted, whether what they name exists, and the worst problem's code.",
			[]string{"kind", "accepted", "resolved", "code"}, nil),
		byNamespace: map[string]map[objectState]int{}, reported: map[objectState]bool{},
	}
}

// show lets the gauge be asked until ctx ends. The manager calls it on the leader.
func (g *objectsGauge) show(ctx context.Context) error {
	if err := metrics.Registry.Register(g); err != nil {
		return fmt.Errorf("the metric remora_objects: %w", err)
	}
	<-ctx.Done()
	metrics.Registry.Unregister(g)
	return nil
}

// set replaces the counts of a namespace.
func (g *objectsGauge) set(namespace string, counts map[objectState]int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(counts) == 0 {
		delete(g.byNamespace, namespace)
		return
	}
	g.byNamespace[namespace] = counts
}

// Describe is for the registry.
func (g *objectsGauge) Describe(to chan<- *prometheus.Desc) { to <- g.description }

// Collect is for the registry.
func (g *objectsGauge) Collect(to chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	total := map[objectState]int{}
	for s := range g.reported {
		total[s] = 0
	}
	for _, counts := range g.byNamespace {
		for s, n := range counts {
			total[s] += n
			g.reported[s] = true
		}
	}
	for s, n := range total {
		to <- prometheus.MustNewConstMetric(g.description, prometheus.GaugeValue, float64(n),
			s.kind, strconv.FormatBool(s.accepted), strconv.FormatBool(s.resolved), s.code)
	}
}
