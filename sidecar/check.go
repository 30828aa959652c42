package main

import (
	"fmt"
	"io"
	"strings"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/terminal"
	"remora.dev/remora/sidecar/watch"
)

// colours of the severities, on terminals.
var colours = map[routing.Severity]string{routing.Invalid: "\x1b[31m", routing.Unresolved: "\x1b[35m", routing.Warning: "\x1b[33m"}

// check prints every problem of a configuration as admission would word it, by place.
func check(a launch.Args, w io.Writer) error {
	report, err := watch.Read(a.Config, a.Labels)
	if err != nil {
		return fmt.Errorf("--config %s: %w", a.Config, err)
	}
	coloured := terminal.Is(w)
	counts := map[routing.Severity]int{}
	last := ""
	for _, f := range report.Findings {
		counts[f.Severity]++
		head := f.File
		if f.Line > 0 {
			head = fmt.Sprintf("%s:%d  %s", f.File, f.Line, f.Object)
		}
		if head != last {
			fmt.Fprintln(w, head)
		}
		last = head
		word := fmt.Sprintf("%-10s", f.Severity)
		if coloured {
			word = colours[f.Severity] + word + "\x1b[0m"
		}
		fmt.Fprintf(w, "  %s  %s\n", word, f.Problem)
	}
	fmt.Fprintln(w, summary(report, counts))
	if report.Objects == 0 && len(report.Findings) == 0 {
		fmt.Fprintf(w, "There is nothing that is read in %s: no LLMProvider, LLMRoute or Secret, and no object of Istio or of the cluster. Of a folder, *.yaml, *.yml and *.json are read, and no folders in it.\n", a.Config)
	}
	if counts[routing.Invalid] > 0 {
		return errInvalid
	}
	return nil
}

func summary(report *watch.Report, counts map[routing.Severity]int) string {
	parts := []string{number(report.Objects, "object")}
	if report.Ignored > 0 {
		parts[0] += fmt.Sprintf(" (%d of other kinds ignored)", report.Ignored)
	}
	if len(report.Findings) == 0 {
		return parts[0] + ": nothing wrong"
	}
	parts = []string{
		fmt.Sprintf("%s: %d invalid", parts[0], counts[routing.Invalid]),
		fmt.Sprintf("%d unresolved", counts[routing.Unresolved]),
		number(counts[routing.Warning], "warning"),
	}
	return strings.Join(parts, ", ")
}

func number(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
