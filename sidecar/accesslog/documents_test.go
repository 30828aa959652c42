package accesslog

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
)

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/access-log.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEveryFieldIsDescribedAndNoOther(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|.* \\| (.*) \\|$")
	var described, always []string
	for _, m := range row.FindAllStringSubmatch(document(t), -1) {
		described = append(described, m[1])
		if m[2] == "never" {
			always = append(always, m[1])
		}
	}
	line := written(JSON, full(), withCapture())
	var order []string
	for _, m := range regexp.MustCompile(`[{,]"([a-z_]+)":`).FindAllStringSubmatch(line, -1) {
		order = append(order, m[1])
	}
	if !slices.Equal(described, order) {
		t.Errorf("described are\n%v\nand written\n%v", described, order)
	}
	var b strings.Builder
	New(&b, JSON, launch.Identity{}).Record(&record.Record{Start: full().Start}, telemetry.Default())
	least := slices.Sorted(maps.Keys(fields(t, b.String())))
	slices.Sort(always)
	if !slices.Equal(least, always) {
		t.Errorf("never left out should be %v, and are %v", always, least)
	}
}

func TestTheCommandsForJQTellWhatTheLogSays(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`{"level":"info","ts":"2026-11-23T00:00:00Z","logger":"proxy","msg":"serving"}` + "\nnot JSON\n" + string(JSON.Missing(3)))
	call := func(workload, model string, tokens int64, first time.Duration, code routing.Code, status int, cost float64) {
		r := full()
		r.RequestModel, r.Usage, r.FirstToken, r.Code, r.Status, r.Cost, r.Capture = model, record.Usage{Input: tokens, Output: 1, Reported: true}, first, code, status, cost, nil
		if r.Trace.Trace[0] = byte(tokens); tokens == 10 {
			r.Trace = full().Trace
		}
		New(&b, JSON, launch.Identity{Workload: workload}).Record(r, telemetry.Default())
	}
	call("Deployment/a", "fast", 100, 10*time.Millisecond, "", 200, 0.25)
	call("Deployment/b", "slow", 10, 900*time.Millisecond, "", 200, 2)
	call("Deployment/b", "slow", 20, 500*time.Millisecond, routing.IdleTimeout, 200, 0.5)
	call("Deployment/b", "slow", 30, 700*time.Millisecond, routing.UpstreamRefusal, 429, 0)
	call("Deployment/b", "slow", 40, 0, routing.UpstreamRefusal, 429, 0)
	log := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(log, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(document(t), -1)
	want := []string{
		"104 Deployment/b\n101 Deployment/a\n",
		"900 700 slow\n10 10 fast\n",
		"2 UpstreamRefusal 429 demo/qwen\n1 IdleTimeout 200 demo/qwen\n",
		"2.5 USD slow\n0.25 USD fast\n",
		"\"trace_id\":\"01020000000000000000000000000000\"",
	}
	if len(commands) != len(want) {
		t.Fatalf("%d commands, of which %d are known", len(commands), len(want))
	}
	for i, command := range commands {
		run := exec.CommandContext(t.Context(), "bash", "-c", command[1])
		run.Dir = filepath.Dir(log)
		got, err := run.CombinedOutput()
		if err != nil || i < 4 && string(got) != want[i] || i == 4 && (strings.Count(string(got), "\n") != 1 || !strings.Contains(string(got), want[i])) {
			t.Errorf("%s\n%v, got\n%swant\n%s", command[1], err, got, want[i])
		}
	}
}
