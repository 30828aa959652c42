package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/netns"
)

var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = assets.Dir(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	netns.Enter(map[string]string{providerHost: "127.0.0.1"})
	os.Exit(m.Run())
}

func TestTheBenchmarkMeasuresEverythingItPromises(t *testing.T) {
	var out, progress strings.Builder
	if err := run(t.Context(), binaries, []string{"-quick"}, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for _, figure := range []string{
		"Resident memory of the sidecar while it watches: ", "to the first request that shows it: p50 ", " requests, 0 failed", "Admission of an LLMProvider",
		"last request with the old key, 3 sidecars, 5 rounds, ms | ", "5 rotations under load: ", "1 rotations after each of which ",
		"last use of its key, 3 sidecars, 5 rounds, ms | ",
		"A gateway with 2000 endpoints in 2 Services: ", " writes of slices of 100: the gateway uses ",
		"first call at the new server, 2000 endpoints, ", "calls to the others, 0 failed",
		"200 objects more", "20 sidecars with three watches each start at once: p50 ", "per 1,000: ", "% of one core per 1,000", "One change reaches all of them: p50 ",
	} {
		if !strings.Contains(out.String(), figure) {
			t.Errorf("there is no %q in\n%s", figure, out.String())
		}
	}
}
