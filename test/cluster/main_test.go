//go:build linux

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAClusterFromTheCommandLineRunsUntilItIsTakenDown(t *testing.T) {
	program := filepath.Join(t.TempDir(), "cluster")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cluster := func(args ...string) (stdout string) {
		t.Helper()
		var told strings.Builder
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Stderr = &told
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("cluster %s: %v: %s", strings.Join(args, " "), err, told.String())
		}
		return string(out)
	}
	named := "--name=from-command-line"
	t.Cleanup(func() { exec.Command(program, "down", named).Run() }) // after a failure; otherwise nothing is there

	shell := cluster("up", "--control-plane", named)
	// What it prints is meant to be pasted into a shell, and `up` has ended by now.
	out, err := exec.CommandContext(t.Context(), "sh", "-c", shell+"kubectl get namespaces -o name").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "namespace/default") {
		t.Errorf("after %q, kubectl says %q, %v", shell, out, err)
	}
	if got := cluster("status"); !strings.Contains(got, "from-command-line\tcontrol plane\truns\n") {
		t.Errorf("the status is %q; want the cluster to run", got)
	}
	if out, err := exec.CommandContext(t.Context(), program, "up", named).CombinedOutput(); err == nil || !strings.Contains(string(out), "down") {
		t.Errorf("a second cluster of the same name: %v, %s; want a hint at down", err, out)
	}
	for range 2 { // the second finds nothing to do
		cluster("down", named)
	}
	if got := cluster("status"); strings.Contains(got, "from-command-line") {
		t.Errorf("after down, the status is %q", got)
	}
}

func TestAMisspeltCommandShowsThoseThatThereAre(t *testing.T) {
	var stdout, stderr strings.Builder
	if err := run(t.Context(), []string{"dwon"}, &stdout, &stderr); err == nil || !strings.Contains(stderr.String(), "cluster down") {
		t.Errorf("the error is %v, and what is shown: %s", err, stderr.String())
	}
}
