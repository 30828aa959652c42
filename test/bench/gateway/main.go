// Command gateway measures how evenly `sidecar gateway` spreads calls over servers and what that costs, beside haproxy, nginx and
// a bare fasthttp proxy in front of the same three servers: each on one core of its own, while the load and the servers share
// another. All figures of a table come from one run.
//
// It fails when an answer of Remora or of the yardstick is wrong, and never for slowness.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/pinned"
)

func main() { pinned.Main(nil, play, run) }

// play takes a role in which the benchmark starts this program as a child of its own.
func play(role string, args []string) (isRole bool, err error) {
	switch role {
	case "pinned":
		return true, pinned.Become(args)
	case "servers":
		return true, serveServers(args, os.Stdout)
	case "bare":
		return true, serveBare(args)
	}
	return false, nil
}

// plan says how much is measured.
type plan struct {
	rounds, laps, requests, connections int
	slowRequests                        int // while one of the servers is slow
	settle                              time.Duration
}

var (
	fullPlan  = plan{rounds: 3, laps: 2, requests: 6_000, connections: 32, slowRequests: 3_000, settle: 4 * time.Second}
	quickPlan = plan{rounds: 1, laps: 1, requests: 300, connections: 8, slowRequests: 100, settle: 50 * time.Millisecond}
)

type options struct {
	plan
	sidecar string
	form    figures.Form
	without []string // contestants
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{plan: fullPlan}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	quick := flags.Bool("quick", false, "seconds instead of minutes: judges the answers, its figures mean nothing")
	markdown := flags.Bool("markdown", false, "print the tables as Markdown")
	flags.StringVar(&o.sidecar, "sidecar", "bin/sidecar", "the sidecar to measure")
	flags.Func("without", "a contestant to leave out (remora, haproxy, nginx); may be given again", func(name string) error {
		o.without = append(o.without, name)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if *quick {
		o.plan = quickPlan
	}
	if *markdown {
		o.form = figures.Markdown
	}
	return o, nil
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	loadCore, proxyCore, folder, end, err := pinned.Begin()
	if err != nil {
		return err
	}
	defer end()
	servers, err := beginServers(loadCore)
	if err != nil {
		return err
	}
	defer servers.Stop()
	all, absent, err := beginAll(ctx, o, proxyCore, folder, servers.addresses)
	defer func() {
		for _, r := range all {
			r.Stop()
		}
	}()
	if err != nil {
		return err
	}
	// An interrupted run ends at once: without its proxies nobody waits for an answer any more.
	defer context.AfterFunc(ctx, func() {
		for _, r := range all {
			r.Kill()
		}
	})()
	sheet, err := o.measure(ctx, all, progress)
	if err != nil {
		return err
	}
	o.report(out, all, absent, sheet)
	return nil
}

func (o options) report(out io.Writer, all []*running, absent []missing, s figures.Sheet) {
	fmt.Fprintln(out, figures.Machine())
	var columns []string
	for _, r := range all {
		if slices.Contains(columns, r.program) {
			continue
		}
		columns = append(columns, r.program)
		fmt.Fprintf(out, "%-9s  %s\n", r.program, r.version)
	}
	for _, r := range all {
		if r.wrong != nil {
			fmt.Fprintf(out, "%-9s  WRONG with %s, and not measured after that: %v\n", r.program, r.policy, r.wrong)
		}
	}
	for _, m := range absent {
		fmt.Fprintf(out, "%-9s  MISSING: %v\n", m.program, m.reason)
	}
	fmt.Fprintf(out, "Medians of %d rounds; in brackets the median multiple of bare fasthttp in the same lap. %d connections ask three servers in a closed loop.\n\n",
		o.rounds, o.connections)
	s.Tabulate(rows(), yardstick, columns...).Write(out, o.form)
}
