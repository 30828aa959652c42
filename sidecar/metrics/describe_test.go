package metrics

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/launch"
)

// row is what the documentation says of a metric.
type row struct{ kind, labels string }

func documented(t *testing.T) map[string]row {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]row{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\w+) \\| [^|]+ \\| (.*)$").FindAllStringSubmatch(string(text), -1) {
		if _, twice := all[m[1]]; twice {
			t.Errorf("%s is documented twice", m[1])
		}
		all[m[1]] = row{m[2], strings.ReplaceAll(m[3], "model labels", "`gen_ai_operation_name`, `gen_ai_provider_name`, `gen_ai_request_model`, `gen_ai_response_model`, `provider`, `rule`")}
	}
	return all
}

func TestWhatIsDocumentedIsWhatThereIs(t *testing.T) {
	rows, described := documented(t), map[string]bool{}
	for _, f := range families {
		described[f.name] = true
		if kind, _ := describe(f.name); rows[f.name].kind != kind {
			t.Errorf("docs/metrics.md calls %s %q, it is a %s", f.name, rows[f.name].kind, kind)
		}
	}
	for name := range rows {
		if !described[name] {
			t.Errorf("docs/metrics.md has %s, package metrics says nothing of it", name)
		}
	}
	// And in the programs.
	source := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || filepath.Base(path) == "describe.go" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile("[\"`](remora_[a-z_]+|gen_ai_client_[a-z_]+|asm_[a-z_]+)[\"`{]").FindAllStringSubmatch(string(text), -1) {
			source[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range source {
		if !described[name] {
			t.Errorf("%s is written, and not described", name)
		}
	}
	for name := range described {
		if !source[name] {
			t.Errorf("%s is described, and no program writes it", name)
		}
	}
}

// Each metric has the labels that it is documented with, and those of a request that is over have all of them.
func TestTheLabelsAreThoseOfTheDocumentation(t *testing.T) {
	s := New()
	s.Belong(launch.Identity{Namespace: "shop", Workload: "Deployment/checkout"})
	r := answeredBy("qwen", "gpt-5")
	r.Usage.EstimatedOutput, r.Fallbacks = 5, 1
	s.Observe(r, "USD")
	r.Code = "ClientGone"
	s.Observe(r, "USD")
	s.Calls(Call{Provider: "demo/qwen", Model: "gpt-5", Operation: "chat"}).Input.Inc()
	s.Failures("ClientGone").Inc()
	s.Retries("demo/qwen", "ClientGone").Inc()
	s.RetriesWithheld("demo/qwen").Inc()
	s.Ejections("demo/qwen").Inc()
	s.MirrorsDropped("demo/qwen").Inc()
	s.Key("demo/qwen", "first").Answered(200)
	s.Key("demo/qwen", "first").Rested()
	s.Servers("chat").Show(func() (int, int, int) { return 1, 0, 0 })
	s.Spliced().Sent.Inc()
	s.SpansDropped("queue_full").Inc()
	s.LogLinesDropped("access", func() uint64 { return 0 })
	s.Info("remora_workload_info", func() []string { return []string{"workload", "Deployment/checkout", "service_account", "checkout"} })
	rows := documented(t)
	labels := map[string]map[string]bool{}
	for line := range strings.Lines(shown(s)) {
		name := line[:strings.IndexAny(line, "{ ")]
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "go_") || strings.HasPrefix(line, "process_") {
			continue
		}
		name = familyOf(name)
		if labels[name] == nil {
			labels[name] = map[string]bool{}
		}
		for _, m := range regexp.MustCompile(`[{,]([a-z_]+)="`).FindAllStringSubmatch(line, -1) {
			if m[1] != "le" {
				labels[name][m[1]] = true
			}
		}
	}
	values := regexp.MustCompile("=`\\w+`(/`\\w+`)*")
	for name, has := range labels {
		row, found := rows[name]
		if !found {
			t.Errorf("%s is not documented", name)
		}
		column, _, _ := strings.Cut(values.ReplaceAllString(strings.ReplaceAll(row.labels, `\|`, "/"), ""), "|")
		for label := range has {
			if !strings.Contains(column, "`"+label+"`") {
				t.Errorf("%s has the label %s, which is not documented", name, label)
			}
		}
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(column, -1) {
			if !has[m[1]] {
				t.Errorf("%s does not have the label %s", name, m[1])
			}
		}
	}
	lint(t, shown(s))
}
