package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/test/bench/pinned"
	"remora.dev/remora/test/netns"
)

// The benchmark starts itself in roles; here that is the test binary.
func TestMain(m *testing.M) {
	pinned.Play(play)
	netns.Enter(hosts)
	os.Exit(m.Run())
}

func TestAQuickRunPrintsEveryFigure(t *testing.T) {
	temporary := t.TempDir()
	binary := filepath.Join(temporary, "sidecar")
	if said, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "remora.dev/remora/sidecar").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-quick", "-markdown", "-sidecar", binary}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, f := range append(costs[:len(costs):len(costs)], scrapes...) {
		if _, row, found := strings.Cut(out.String(), "| "+f.Label); !found || strings.Contains(strings.SplitN(row, "\n", 2)[0], "–") {
			t.Errorf("a figure is missing for %q in:\n%s", f.Label, out.String())
		}
	}
}

func TestASidecarThatIsNotBuiltIsNamed(t *testing.T) {
	err := run(t.Context(), []string{"-quick", "-sidecar", filepath.Join(t.TempDir(), "absent")}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("it is said: %v", err)
	}
}
