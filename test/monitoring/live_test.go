package monitoring

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// Real sidecars, a gateway, webhook and controller under load, read by a real Prometheus: a query that says nothing of them would say nothing
// at a user's either.
func TestEachQueryOfPanelsAndRulesHasDataAndAlertsComeWithTheirFault(t *testing.T) {
	r := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	r.load(ctx, t)
	t.Cleanup(stop) // before the callers are waited for
	p := newPrometheus(t, r)

	var left []query
	for _, b := range dashboards(t) {
		for _, q := range b.queries() {
			left = append(left, query{q.where, filled(q.expr)})
		}
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Record, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(hurry(read(t, root+"config/monitoring/rules.yaml"))), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, rule := range g.Rules {
			left = append(left, query{"rule " + rule.Alert + rule.Record, asked(strings.TrimSpace(rule.Expr))})
		}
	}
	t.Logf("%d queries", len(left))
	await(t, 60*time.Second, func() string {
		var still []query
		said := ""
		for _, q := range left {
			if why := p.missing(ctx, q.expr); why != "" {
				still = append(still, q)
				said += fmt.Sprintf("%s: %s\n\t%s\n", q.where, why, q.expr)
			}
		}
		left = still
		return said
	})
	r.picture(ctx, t, p)
	// Three faults, and what tells of them.
	firing := func(alert, labels string) {
		t.Helper()
		await(t, 30*time.Second, func() string {
			got, err := p.ask(ctx, "query", url.Values{"query": {fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing",%s}`, alert, labels)}})
			if err != nil || len(got) == 0 {
				return fmt.Sprintf("%s does not fire (%v)", alert, err)
			}
			return ""
		})
	}
	quiet := func(alert, labels string) {
		t.Helper()
		if got, err := p.ask(ctx, "query", url.Values{"query": {fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing",%s}`, alert, labels)}}); err != nil || len(got) > 0 {
			t.Errorf("%s fires before its fault: %v %v", alert, got, err)
		}
	}
	quiet("RemoraProviderFails", `provider="shop/qwen"`)
	r.qwen.Close()
	firing("RemoraProviderFails", `provider="shop/qwen"`)
	quiet("RemoraServersGone", `namespace="edge"`)
	r.write(t, "gateway.yaml", strings.Replace(read(t, filepath.Join(r.folder, "gateway.yaml")), "ready: true", "ready: false", 1))
	firing("RemoraServersGone", `namespace="edge"`)
	quiet("RemoraNotScraped", `job="remora-sidecars"`)
	r.last()
	firing("RemoraNotScraped", `job="remora-sidecars"`)
}
