package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// goBenchmarks are what cannot be seen from outside of a process: how long the table takes to find a backend, and how often
// a request allocates. They are Go benchmarks of the packages themselves.
func goBenchmarks(ctx context.Context) ([]string, error) {
	run := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^(BenchmarkMatch|BenchmarkRequest|BenchmarkRedirectedRequest)$", "-benchmem",
		"remora.dev/remora/sidecar/routing", "remora.dev/remora/sidecar/proxy")
	// The tests make a namespace of their own, with other names in it than this one.
	run.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "REMORA_NETNS_OUTSIDE=") })
	said, err := run.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("the Go benchmarks: %w: %s", err, said)
	}
	var lines []string
	for line := range strings.Lines(string(said)) {
		if name, rest, found := strings.Cut(line, "\t"); found && strings.HasPrefix(name, "Benchmark") {
			fields := strings.Fields(rest)
			lines = append(lines, fmt.Sprintf("%-40s %s", strings.TrimSpace(name), strings.Join(fields[1:], " ")))
		}
	}
	return lines, nil
}
