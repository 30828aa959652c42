// Command bench measures what Remora costs beside a bare fasthttp proxy, nginx and haproxy: each is a
// reverse proxy from plain HTTP on loopback to one HTTPS upstream, on one core of its own, while the
// load and the upstream share another. All figures of a table come from one run.
//
// It fails when an answer of Remora or the yardstick is wrong, and never for slowness.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/pinned"
)

func main() { pinned.Main(map[string]string{providerHost: "127.0.0.1"}, play, run) }

// play takes a role in which the benchmark starts this program as a child of its own.
func play(role string, args []string) (isRole bool, err error) {
	switch role {
	case "pinned":
		return true, pinned.Become(args)
	case "upstream":
		return true, serveUpstream(args, os.Stdout)
	case "bare":
		return true, serveBare(args)
	case "splice":
		return true, serveSplice(args)
	case "coding":
		return true, serveCoding(args)
	case "httputil":
		return true, serveHTTPUtil(args)
	}
	return false, nil
}

type options struct {
	plan    plan
	only    []string
	sidecar string
	quick   bool
	form    figures.Form
}

func parse(args []string, out io.Writer) (options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	rounds := flags.Int("rounds", 0, "rounds over all contestants, in turns; the report shows their median (default 3, quick 1)")
	only := flags.String("only", "", "comma-separated contestants (remora, fasthttp, nginx, haproxy, nginx+lua, fasthttp+json, httputil); default all")
	quick := flags.Bool("quick", false, "seconds instead of minutes: judges the answers, its figures mean nothing")
	sidecar := flags.String("sidecar", "bin/sidecar", "the sidecar to measure")
	markdown := flags.Bool("markdown", false, "print the table as Markdown")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	o := options{plan: fullPlan, sidecar: *sidecar, quick: *quick}
	if *quick {
		o.plan = quickPlan
	}
	if *markdown {
		o.form = figures.Markdown
	}
	if *rounds > 0 {
		o.plan.rounds = *rounds
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(contestants(""), func(c contestant) bool { return c.name == name }) {
			return options{}, fmt.Errorf("-only: there is no contestant %q", name)
		}
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
	files, err := writeCertificates(folder)
	if err != nil {
		return err
	}
	upstream, port, err := beginUpstream(loadCore, files)
	if err != nil {
		return err
	}
	defer upstream.Stop()
	all, absent, err := beginAll(ctx, o, proxyCore, place{folder: folder, authorityFile: files.authority, upstreamPort: port})
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

	authority, err := trust(files.authority)
	if err != nil {
		return err
	}
	noProxy := func() *load { return openLoad("127.0.0.1:"+strconv.Itoa(port), authority, configuredCaller) }
	measured, err := o.plan.measure(ctx, all, noProxy, progress)
	if err != nil {
		return err
	}
	var changes []time.Duration
	var foreign figures.Sheet
	for _, r := range all {
		if r.Name != remoraName {
			continue
		}
		fmt.Fprintf(progress, "%d changes of the configuration\n", o.plan.changes)
		if changes, err = reloads(ctx, r, o.plan.changes); err != nil {
			return r.Explain(err)
		}
		if foreign, err = o.plan.measureForeign(ctx, r, proxyCore, progress); err != nil {
			return err
		}
	}
	o.report(out, all, absent, measured, loadCore == proxyCore)
	if foreign == nil || o.quick {
		return nil
	}
	fmt.Fprintln(out)
	foreign.Tabulate([]figures.Figure{foreignCPU, foreignMiB}, leastSplice, remoraName, leastSplice).Write(out, o.form)
	fmt.Fprintf(out, "\nremora, from a changed file to its first effect: p50 %.1f ms, p99 %.1f ms, over %d changes\n",
		milliseconds(quantile(changes, 0.5)), milliseconds(quantile(changes, 0.99)), len(changes))
	fmt.Fprintln(progress, "Go benchmarks of the packages")
	lines, err := goBenchmarks(ctx)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	return err
}

func beginUpstream(core int, files certificates) (*pinned.Process, int, error) {
	p, err := pinned.Launch("upstream", core, []string{pinned.Self, "upstream", files.certificate, files.key})
	if err != nil {
		return nil, 0, err
	}
	line, err := p.Out.ReadString('\n')
	if err == nil {
		var port int
		if port, err = strconv.Atoi(strings.TrimSpace(line)); err == nil {
			return p, port, nil
		}
	}
	err = p.Explain(err)
	p.Stop()
	return nil, 0, err
}

// beginAll starts the contestants that are wanted and here. Those it returns are to be stopped, also after an error.
func beginAll(ctx context.Context, o options, core int, at place) (all []*running, absent []missing, err error) {
	for _, c := range contestants(o.sidecar) {
		if len(o.only) > 0 && !slices.Contains(o.only, c.name) {
			continue
		}
		binary, version, err := c.find()
		if err != nil {
			absent = append(absent, missing{c.name, err})
			continue
		}
		at.folder = filepath.Join(filepath.Dir(at.authorityFile), c.name)
		if err := os.Mkdir(at.folder, 0o700); err != nil {
			return all, absent, err
		}
		r, err := begin(ctx, c, binary, version, core, at)
		if err != nil {
			return all, absent, err
		}
		all = append(all, r)
	}
	return all, absent, nil
}

func (o options) report(out io.Writer, all []*running, absent []missing, s figures.Sheet, oneCore bool) {
	var columns []string
	fmt.Fprintln(out, figures.Machine())
	if oneCore {
		fmt.Fprintln(out, "only one core: proxies, load and upstream share it")
	}
	for _, r := range all {
		columns = append(columns, r.Name)
		fmt.Fprintf(out, "%-13s  %s\n", r.Name, r.version)
		if r.wrong != nil {
			fmt.Fprintf(out, "%-13s  WRONG, and not measured after that: %v\n", "", r.wrong)
		}
	}
	for _, m := range absent {
		fmt.Fprintf(out, "%-13s  MISSING: %v\n", m.name, m.reason)
	}
	fmt.Fprintf(out, "Medians of %d rounds; in brackets the median multiple of bare fasthttp in the same lap. "+
		"%d connections ask in a closed loop; %d streams carry 20 chunks a second each.\n\n",
		o.plan.rounds, o.plan.connections, o.plan.streams)
	s.Tabulate(rows, yardstick, append(columns, direct)...).Write(out, o.form)
}
