package monitoring

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/launch"
)

const root = "../../"

// promtool runs a command that must succeed.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v (it is in Debian's package prometheus)\n%s", strings.Join(args, " "), err, out)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

type alert struct {
	Alert       string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal([]byte(read(t, root+"config/monitoring/rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert != "" {
				all = append(all, r)
			}
		}
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

func TestEachAlertComesWhenItHasToAndNotOtherwise(t *testing.T) {
	promtool(t, "check", "rules", root+"config/monitoring/rules.yaml")
	promtool(t, "test", "rules", "testdata/alerts.yaml", "testdata/calls.yaml")
	tried := read(t, "testdata/alerts.yaml") + read(t, "testdata/calls.yaml")
	for _, a := range alerts(t) {
		if n := strings.Count(tried, a.Alert); n < 2 {
			t.Errorf("%s is tried %d times: it has to be seen to come, and to stay away", a.Alert, n)
		}
	}
}

func TestEachAlertSaysWhatAPersonDoes(t *testing.T) {
	for _, a := range alerts(t) {
		for _, name := range []string{"summary", "description", "runbook"} {
			if a.Annotations[name] == "" {
				t.Errorf("%s has no %s", a.Alert, name)
			}
		}
		if s := a.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has the severity %q", a.Alert, s)
		}
	}
}

var (
	recorded = regexp.MustCompile(`[a-z_]+:[a-z_]+:[a-z0-9_]+`) // what a rule makes
	suffix   = regexp.MustCompile(`_(bucket|count|sum)$`)       // of a histogram
)

// A rule about a metric that nobody shows never comes.
func TestTheMetricsOfTheRulesAreShown(t *testing.T) {
	var product strings.Builder
	for _, folder := range []string{"webhook", "sidecar"} {
		err := filepath.WalkDir(root+folder, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				product.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range regexp.MustCompile(`remora_[a-z_]+`).FindAllString(recorded.ReplaceAllString(read(t, root+"config/monitoring/rules.yaml"), ""), -1) {
		name = suffix.ReplaceAllString(name, "")
		if !strings.Contains(product.String(), `"`+name+`"`) && !strings.Contains(product.String(), name+"{") {
			t.Errorf("no program shows %s", name)
		}
	}
}

// Debian's promtool knows no kinds of discovery: it is shown what is said of the targets.
func TestTheMetricsAreFoundAsTheFileSays(t *testing.T) {
	text := regexp.MustCompile(`(?m)^  kubernetes_sd_configs:\n(  [- ].*\n)+?  relabel_configs:`).ReplaceAllString(read(t, root+"config/monitoring/scrape.yaml"), "  relabel_configs:")
	if strings.Contains(text, "kubernetes_sd_configs") || strings.Count(text, "relabel_configs") != 3 {
		t.Fatalf("there is more to check in\n%s", text)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", file)
}

// The command in the file's first lines makes an object of the operator's of it.
func TestTheOperatorsObjectHasTheSameRules(t *testing.T) {
	var command strings.Builder
	for line := range strings.Lines(read(t, root+"config/monitoring/rules.yaml")) {
		if text, ok := strings.CutPrefix(line, "#   "); ok {
			command.WriteString(text)
		}
	}
	made, _, found := strings.Cut(command.String(), "| kubectl")
	if !found {
		t.Fatalf("the command is %s", command.String())
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", made)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Kind string
		Spec struct{ Groups []any }
	}
	var file struct{ Groups []any }
	if err := yaml.UnmarshalStrict([]byte(read(t, root+"config/monitoring/rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(out, &object); err != nil || object.Kind != "PrometheusRule" || len(object.Spec.Groups) != len(file.Groups) {
		t.Errorf("%v; of %d groups there are\n%s", err, len(file.Groups), out)
	}
}

// Prometheus finds pods by label and port: those that the installation and the injector write.
func TestTheTargetsAreThoseThatAreInstalled(t *testing.T) {
	scrape := read(t, root+"config/monitoring/scrape.yaml")
	label := "__meta_kubernetes_pod_label_" + regexp.MustCompile(`[^a-z]`).ReplaceAllString(v1beta1.InjectedLabel, "_") + "]"
	for _, want := range []string{label, v1beta1.SidecarContainer + ",", "$1" + launch.DefaultHealth, "namespaces: {names: [" + v1beta1.InstallationNamespace + "]}"} {
		if !strings.Contains(scrape, want) {
			t.Errorf("there is no %s in\n%s", want, scrape)
		}
	}
	for _, program := range []string{"controller", "webhook"} {
		if text := read(t, root+"config/"+program+"/deployment.yaml"); !strings.Contains(text, "- name: metrics\n") {
			t.Errorf("the %s has no port metrics", program)
		}
	}
}
