// Package figures is what the benchmarks have in common: times, tables, and what a process uses of the machine.
package figures

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Times are durations of the same thing.
type Times []time.Duration

// String gives p50 and p99.
func (t Times) String() string {
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", Milliseconds(t.Quantile(0.5)), Milliseconds(t.Quantile(0.99)))
}

// Quantile gives what a share q of all does not exceed; 0 if there is none.
func (t Times) Quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Milliseconds gives a duration as a number.
func Milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// Resident gives the resident memory of a process in MiB, pages that it shares with others included.
func Resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// CPUTime gives what all threads of a process have used of the processors so far, ended ones too. The kernel keeps it in
// nanoseconds, which /proc/PID/stat does not show.
func CPUTime(pid int) (time.Duration, error) {
	const ofProcess = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|ofProcess, &t); err != nil {
		return 0, fmt.Errorf("the processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
