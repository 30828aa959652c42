package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/netns"
)

func TestMain(m *testing.M) {
	netns.Enter(names)
	os.Exit(m.Run())
}

// The same as `make soak`, for a shorter time.
func TestNothingLeaksInTwoMinutes(t *testing.T) {
	s := settings{length: 2 * time.Minute, seed: uint64(time.Now().UnixNano()), apps: 16}
	if err := run(t.Context(), s, t.Output()); err != nil {
		t.Error(err)
	}
}

// What metrics, access log and traces say of them is one record, and that is the provider's own. What the estimates of answers that were
// cut are off is in the test's output.
func TestTokensOfTenThousandMixedRequestsAreTheSameEverywhere(t *testing.T) {
	s := settings{calls: 11_000, seed: uint64(time.Now().UnixNano()), apps: 64} // some are for foreign hosts, and some never are whole
	if err := run(t.Context(), s, t.Output()); err != nil {
		t.Error(err)
	}
}

func TestALeakIsSeen(t *testing.T) {
	base := levels{goroutines: 40, files: 25, resident: 30 << 20}
	for name, l := range map[string]levels{
		"goroutines": {goroutines: 60, files: 25, resident: 30 << 20},
		"files":      {goroutines: 40, files: 40, resident: 30 << 20},
		"memory":     {goroutines: 40, files: 25, resident: 100 << 20},
	} {
		if l.within(base) {
			t.Errorf("%s: %s is not more than %s", name, l, base)
		}
	}
	if !base.within(base) {
		t.Error("what was there is a leak")
	}
}

func TestAMissingTokenIsSeen(t *testing.T) {
	provider, err := llmserver.Start(llmserver.Options{Hosts: []string{steady}})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := provider.Client().Post("https://"+steady+"/v1/embeddings", "application/json", strings.NewReader(`{"model":"m","input":"a b c"}`))
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", err, answer)
	}
	answer.Body.Close()
	provider.Close() // the answer has ended for the server as well
	f := func(counted int, want bool) {
		t.Helper()
		s := samples{}
		series := `remora_tokens_total{provider="default/steady",model="m",operation="embeddings",type="input",precision=%q}`
		s[fmt.Sprintf(series, "exact")], s[fmt.Sprintf(series, "estimated")] = float64(counted), 1000
		v := verdict{w: &world{provider: provider, counts: newCounts()}}
		v.tokens(tabwriter.NewWriter(io.Discard, 0, 0, 0, ' ', 0), s)
		if got := strings.Contains(strings.Join(v.wrong, "\n"), "tokens of input were reported"); got != want {
			t.Errorf("%d of 3 tokens counted, and that is wrong: %v", counted, got)
		}
	}
	f(3, false)
	f(2, true)
	f(4, true)
	f(0, true)
}
