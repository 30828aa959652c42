// Command telemetry measures what it costs a sidecar to tell of its calls: processor time per request with metrics, access log and traces on
// and off, what a scrape takes with one model and with a hundred, and the memory of a sidecar that is idle. Each sidecar is on one core of its own,
// while the load, the provider and the collector share another. All figures of a table come from one run.
//
// It fails when an answer is wrong, and never for slowness.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/pinned"
	"remora.dev/remora/test/collector"
	"remora.dev/remora/test/llmserver"
)

const (
	host = "llm.example.com"
	key  = "sk-bench"
)

var hosts = map[string]string{host: "127.0.0.2"}

func main() { pinned.Main(hosts, play, run) }

// play takes a role in which the benchmark starts this program as a child of its own.
func play(role string, args []string) (isRole bool, err error) {
	switch role {
	case "pinned":
		return true, pinned.Become(args)
	case "silent":
		return true, serveSilent(args)
	}
	return false, nil
}

// plan says how much is measured.
type plan struct {
	rounds, requests, streams, connections int
	scrapes                                int
	models                                 []int
	settle                                 time.Duration
}

var (
	fullPlan  = plan{rounds: 7, requests: 4_000, streams: 500, connections: 16, scrapes: 20, models: []int{1, 10, 100}, settle: 4 * time.Second}
	quickPlan = plan{rounds: 1, requests: 100, streams: 10, connections: 4, scrapes: 2, models: []int{1, 10, 100}, settle: 50 * time.Millisecond}
)

type options struct {
	plan
	sidecar string
	form    figures.Form
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{plan: fullPlan}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	quick := flags.Bool("quick", false, "seconds instead of minutes: judges the answers, its figures mean nothing")
	markdown := flags.Bool("markdown", false, "print the tables as Markdown")
	flags.StringVar(&o.sidecar, "sidecar", "bin/sidecar", "the sidecar to measure")
	flags.IntVar(&o.rounds, "rounds", o.rounds, "how often everything is measured")
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
	_, proxyCore, folder, end, err := pinned.Begin()
	if err != nil {
		return err
	}
	defer end()
	provider, err := llmserver.Start(llmserver.Options{Addr: hosts[host] + ":443", Quiet: true, Hosts: []string{host}, Keys: map[string]string{host: key}})
	if err != nil {
		return err
	}
	defer provider.Close()
	spans, err := collector.Start(collector.Options{})
	if err != nil {
		return err
	}
	defer spans.Close()
	s := stage{folder: folder, core: proxyCore, binary: o.sidecar, collector: spans.URL}
	if err := provider.WriteCA(s.ca()); err != nil {
		return err
	}
	all, err := s.beginAll(ctx)
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
	if faults := spans.Faults(); len(faults) > 0 {
		return fmt.Errorf("the collector: %s", faults[0])
	}
	sent := len(spans.Spans())
	if sent == 0 && o.requests >= fullPlan.requests { // of which 1 % are traced
		return fmt.Errorf("%s sent no span, so it has not done what is measured: is it of before? make build", o.sidecar)
	}
	o.report(out, all, sheet, sent)
	return nil
}

func (o options) report(out io.Writer, all []*running, s figures.Sheet, spans int) {
	fmt.Fprintln(out, figures.Machine())
	var columns []string
	for _, r := range all {
		columns = append(columns, r.Name)
		fmt.Fprintf(out, "%-12s  %s\n", r.Name, r.what)
	}
	fmt.Fprintf(out, "Medians of %d rounds; in brackets the median multiple of `nothing` in the same round. %d connections ask a provider over TLS in a closed loop. %d spans were sent.\n\n",
		o.rounds, o.connections, spans)
	s.Tabulate(costs, nothing, columns...).Write(out, o.form)
	fmt.Fprintln(out)
	var models []string
	for _, n := range o.models {
		models = append(models, named(n))
	}
	s.Tabulate(scrapes, "", models...).Write(out, o.form)
}
