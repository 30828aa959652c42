package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/test/bench/pinned"
	"remora.dev/remora/test/netns"
)

// The benchmark starts itself in roles; here that is the test binary.
func TestMain(m *testing.M) {
	pinned.Play(play)
	netns.Enter(nil)
	os.Exit(m.Run())
}

func TestAQuickRunPrintsEveryFigureOfTheYardstick(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	var out bytes.Buffer
	args := []string{"-quick", "-without", "haproxy", "-without", "nginx", "-sidecar", filepath.Join(temporary, "absent")}
	if err := run(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, f := range rows() {
		line := lineOf(out.String(), f.Label)
		if line == "" || !strings.ContainsAny(line[len(f.Label):], "0123456789") {
			t.Errorf("no figure for %q in:\n%s", f.Label, out.String())
		}
	}
	if line := lineOf(out.String(), "remora"); !strings.Contains(line, "MISSING") || !strings.Contains(line, "make build") {
		t.Errorf("a sidecar that is not built is reported as %q", line)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("the run left %v behind (%v)", left, err)
	}
}

func lineOf(text, start string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, start) {
			return line
		}
	}
	return ""
}

func TestUnevennessIsWhatTheBusiestHasMore(t *testing.T) {
	if got := uneven([]int{100, 100, 100}); got != 0 {
		t.Errorf("of an even split: %v", got)
	}
	if got := uneven([]int{110, 95, 95}); got < 9.99 || got > 10.01 {
		t.Errorf("with a tenth more: %v", got)
	}
}
