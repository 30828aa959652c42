package telemetry

import (
	"os"
	"strings"
	"testing"
)

func TestWhatTheReadmeShowsIsValid(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "```yaml\n# ConfigMap remora-telemetry")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatal("the README shows no settings")
	}
	if s, faults := Parse([]byte("#" + block)); len(faults) > 0 || s.Traces.Endpoint == "" || len(s.Prices.Models) != 1 {
		t.Errorf("%+v: %v", s, faults.ToAggregate())
	}
}
