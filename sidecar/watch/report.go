package watch

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// Report is what a configuration in files is worth, judged once.
type Report struct {
	// Findings are the problems, in the order of files and lines.
	Findings []Finding
	// Objects counts those of the kinds that the sidecar reads, Ignored the others.
	Objects, Ignored int
}

// Finding is a problem and where it is written.
type Finding struct {
	routing.Problem
	File string
	Line int // 0: the file or folder as a whole
}

// Read judges the files in path: for the workload with the labels, or with none given for any workload. The
// error says that path cannot be read at all.
func Read(path string, labels map[string]string) (*Report, error) {
	var workload *routing.Workload
	if labels != nil {
		workload = &routing.Workload{Labels: labels}
	}
	s := newSource(path, workload)
	now := time.Now()
	for tries := 0; ; tries++ {
		_, err := s.read(now)
		if err == nil {
			break
		}
		if !errors.Is(err, errMoving) || tries == maxTries {
			return nil, reason(err)
		}
	}
	_, findings, all := s.compile(now)
	r := &Report{Objects: all.objects, Ignored: len(all.ignored)}
	var told tuning
	told.tune(all)
	for _, f := range told.with(append(s.faults(), findings...)) {
		r.Findings = append(r.Findings, Finding{f.Problem, f.at.file, f.at.line})
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return r, nil
}
