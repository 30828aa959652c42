package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDemoShowsWhatItSays(t *testing.T) {
	dir := t.TempDir()
	for name, pkg := range map[string]string{"demo": "./test/demo", "sidecar": "./sidecar"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, name), pkg)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	// The demo judges every step itself, and ends with an error where one is not as it says.
	demo := exec.CommandContext(t.Context(), filepath.Join(dir, "demo"), filepath.Join(dir, "sidecar"))
	demo.Dir = "../.."
	out, err := demo.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"6. Bad configuration", "0 failed", "That was all"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "\x1b[") {
		t.Error("it colours what is not a terminal")
	}
}
