//go:build linux

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

func TestMain(m *testing.M) {
	if _, err := assets.Dir(context.Background(), os.Stderr, assets.Node...); err != nil { // inside, nothing can be downloaded
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	netns.Enter(nil)
	os.Exit(m.Run())
}

func TestTheBenchmarkMeasuresEverythingItPromises(t *testing.T) {
	var out, progress strings.Builder
	if err := run(t.Context(), "../../..", []string{"-quick"}, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for _, figure := range []string{
		"| a pod with one, 1 pods in turn", "A sidecar adds ", " MiB of a sidecar that is idle in its pod", " MiB of each webhook",
		" to the first answer in a pod that shows it, 5 changes, ms |", " calls before, during and after the changes, 0 failed", "where the guards look",
		"the same with injection, ", " ms of the API server;", "with 1500 variables", "Images, unpacked: ",
	} {
		if !strings.Contains(out.String(), figure) {
			t.Errorf("there is no %q in\n%s", figure, out.String())
		}
	}
}
