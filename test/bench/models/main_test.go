package main

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/usage"
	"remora.dev/remora/test/bench/pinned"
	"remora.dev/remora/test/netns"
)

// The benchmark starts itself in roles; here that is the test binary.
func TestMain(m *testing.M) {
	pinned.Play(play)
	netns.Enter(nil)
	os.Exit(m.Run())
}

func TestAQuickRunPrintsAndDrawsEachPolicy(t *testing.T) {
	folder := t.TempDir()
	var out strings.Builder
	if err := run(t.Context(), []string{"-quick", "-sidecar", filepath.Join(folder, "absent"), "-docs", folder}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ROUND_ROBIN p50", "LEAST_TOKENS", "90 % load", "MISSING", "make build", "known beforehand"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
	for _, name := range []string{"balancing-load.svg", "balancing-apart.svg"} {
		drawn, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || strings.Contains(string(drawn), "NaN") || strings.Count(string(drawn), "LEAST_TOKENS") != 1 {
			t.Errorf("%s: %d bytes (%v)", name, len(drawn), err)
		}
	}
}

func TestASimulationIsTheSameEachTime(t *testing.T) {
	arrivals := mixed.Arrivals(rand.New(rand.NewPCG(1, 1)), 6, 30*time.Second)
	of := scenario{policy: routing.LeastTokens, servers: 3, balancers: 2, chance: 5}
	first := of.run(arrivals)
	if !slices.Equal(first, of.run(arrivals)) {
		t.Error("the second time, calls waited otherwise")
	}
	if slices.Min(first) <= 0 {
		t.Error("a call was never answered")
	}
}

func TestTheModelServersStreamAsTheEngineSays(t *testing.T) {
	r := realRun{servers: 2}
	core := 0
	models, addresses, err := r.beginModels(core)
	if err != nil {
		t.Fatal(err)
	}
	defer models.Stop()
	arrivals := mixed.Arrivals(rand.New(rand.NewPCG(1, 1)), 20, 200*time.Millisecond)
	for i := range arrivals {
		arrivals[i].Output = 1 + arrivals[i].Output%20
	}
	got, err := ask(t.Context(), "http://"+addresses[1].String()+"/v1/chat/completions", gatewayHost, arrivals)
	if err != nil {
		t.Fatal(models.Explain(err))
	}
	if got.by["1"] != len(arrivals) || slices.Min(got.first) <= 0 {
		t.Errorf("of %d calls, %v were answered; the quickest within %v", len(arrivals), got.by, slices.Min(got.first))
	}
}

func TestTheProxyEstimatesAPromptAsLongAsTheModelReadsIt(t *testing.T) {
	for _, tokens := range []int{100, 1000, 10_000} {
		if got := usage.Request([]byte(promptOf(tokens))); float64(got) < 0.75*float64(tokens) || float64(got) > 1.25*float64(tokens) {
			t.Errorf("a prompt of %d tokens is estimated at %d", tokens, got)
		}
	}
}
