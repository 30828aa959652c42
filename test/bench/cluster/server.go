package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"remora.dev/remora/test/bench/figures"
)

// usage is the memory of the API server, in MiB, and how many watch it.
type usage struct {
	resident, heap, stacks float64
	watches                int
}

// usage asks the kernel and the API server's metrics.
func (b *bench) usage(ctx context.Context) (u usage, err error) {
	if u.resident, err = figures.Resident(b.APIServer.PID()); err != nil {
		return u, err
	}
	text, err := b.Kubectl(ctx, "get", "--raw", "/metrics")
	if err != nil {
		return u, fmt.Errorf("%w\n%.300s", err, text)
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, " ")
		number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			continue
		}
		switch {
		case name == "go_memstats_heap_inuse_bytes":
			u.heap = number / (1 << 20)
		case name == "go_memstats_stack_inuse_bytes":
			u.stacks = number / (1 << 20)
		case strings.HasPrefix(name, "apiserver_longrunning_requests{") && strings.Contains(name, `verb="WATCH"`):
			u.watches += int(number)
		}
	}
	if u.heap == 0 || u.stacks == 0 {
		return u, errors.New("the API server's metrics do not tell its memory")
	}
	return u, nil
}
