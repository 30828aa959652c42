package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/cluster/controlplane"
)

// hurry makes seconds of the rules' minutes and hours: windows, offsets, and how long an alert waits.
func hurry(rules string) string {
	rules = regexp.MustCompile(`offset 1h`).ReplaceAllString(rules, "offset 2s")
	rules = regexp.MustCompile(`\[[0-9]+[mhd]\]`).ReplaceAllString(rules, "[10s]")
	return regexp.MustCompile(`(?m)^    for: .*$`).ReplaceAllString(rules, "    for: 1s")
}

// prometheus is a real one that reads the rig.
type prometheus struct{ url string }

func newPrometheus(t *testing.T, r *rig) *prometheus {
	t.Helper()
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, "rules.yaml", hurry(read(t, root+"config/monitoring/rules.yaml")))
	config := "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [rules.yaml]\nscrape_configs:\n"
	for _, job := range []string{"remora", "remora-sidecars"} {
		config += "- job_name: " + job + "\n  static_configs:\n"
		for _, s := range r.targets {
			if labels, err := json.Marshal(s.labels); err == nil && s.job == job {
				config += fmt.Sprintf("  - {targets: [%q], labels: %s}\n", s.address, labels)
			}
		}
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	log, err := os.Create(filepath.Join(r.folder, "prometheus.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("prometheus", "--config.file="+r.write(t, "prometheus.yaml", config), "--storage.tsdb.path="+filepath.Join(r.folder, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (it is in Debian's package prometheus)", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p := &prometheus{url: "http://" + address}
	await(t, 20*time.Second, func() string {
		if _, err := p.ask(t.Context(), "query", url.Values{"query": {"vector(1)"}}); err != nil {
			return fmt.Sprintf("%v\n%s", err, read(t, log.Name()))
		}
		return ""
	})
	return p
}

// await asks until there is nothing missing.
func await(t *testing.T, limit time.Duration, missing func() string) {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); ; {
		what := missing()
		if what == "" {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("waited in vain; at last:\n%s", what)
		case <-tick.C:
		}
	}
}

// sample is a series of an answer: one value, or some over time.
type sample struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

func (p *prometheus) ask(ctx context.Context, what string, values url.Values) ([]sample, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/"+what+"?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s %w", values.Get("query"), answer.Error, err)
	}
	return answer.Data.Result, nil
}

// missing says what an answer lacks: data, or a number.
func (p *prometheus) missing(ctx context.Context, expr string) string {
	got, err := p.ask(ctx, "query", url.Values{"query": {expr}})
	if err != nil {
		return err.Error()
	}
	for _, s := range got {
		if s.Value[1] != "NaN" {
			return ""
		}
	}
	return fmt.Sprintf("%d series and no number", len(got))
}

// filled is the query of a panel as Grafana asks it.
func filled(expr string) string {
	namespace := "shop"
	if strings.Contains(expr, "remora_gateway") || strings.Contains(expr, "remora_server") {
		namespace = "edge"
	}
	return strings.NewReplacer("$__rate_interval", "10s", "$__range", "10s", `=~"$namespace"`, `=~".*"`, "$namespace", namespace, "$provider", ".*", "$pod", "web-1").Replace(expr)
}

// asked is the query of an alert such that it answers whether the alert is there or not: 0 or 1 in place of nothing or something.
func asked(expr string) string {
	expr = regexp.MustCompile(`^absent\((.*)\)$`).ReplaceAllString(expr, "$1")
	return regexp.MustCompile(` (>=|==|>|<) `).ReplaceAllString(expr, " $1 bool ")
}
