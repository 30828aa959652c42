package main

import (
	"strings"
	"testing"
)

func TestGoBenchmarksTellOfRoutingAndAllocations(t *testing.T) {
	lines, err := goBenchmarks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{"BenchmarkMatch/10_routes", "BenchmarkMatch/10000_routes", "BenchmarkRequest", "BenchmarkRedirectedRequest", "ns/op", "allocs/op"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
}
