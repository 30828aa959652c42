package main

import (
	"strings"
	"testing"
)

func TestCheckDoesNotMissObjectsWhereItCouldNotRead(t *testing.T) {
	path := write(t, "broken.yaml", "spec: [")
	code, out, _ := call(t, "check", "--config", path)
	if code != 1 || !strings.Contains(out, "is not YAML") || strings.Contains(out, "There is no") {
		t.Errorf("exit code %d: %q", code, out)
	}
}
