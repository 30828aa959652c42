// Command models compares ways to balance calls over servers of language models that are not there: an engine says how long each would
// take to read and write. First as discrete events in simulated time, with the balancer that the proxy has, over many seeds; then once
// for real, with the engines behind HTTP and `sidecar gateway` in front of them, to see whether both agree.
package main

import (
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/pinned"
)

func main() { pinned.Main(nil, play, run) }

// play takes a role in which the benchmark starts this program as a child of its own.
func play(role string, args []string) (isRole bool, err error) {
	switch role {
	case "pinned":
		return true, pinned.Become(args)
	case "models":
		return true, serveModels(args, os.Stdout)
	}
	return false, nil
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	quick := flags.Bool("quick", false, "seconds instead of minutes: its figures mean nothing")
	markdown := flags.Bool("markdown", false, "print the tables as Markdown")
	docs := flags.String("docs", "", "the folder to write the drawings to; empty: they are not drawn")
	sidecar := flags.String("sidecar", "bin/sidecar", "the gateway of the run for real; empty: there is none")
	simulating := flags.Bool("simulation", true, "simulate")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, r, form := fullSweep, fullReal, figures.Text
	if *quick {
		s, r = quickSweep, quickReal
	}
	if *markdown {
		form = figures.Markdown
	}
	if *simulating {
		all, err := s.run(ctx, progress)
		if err != nil {
			return err
		}
		s.tables(out, all, form)
		if *docs != "" {
			for name, drawn := range map[string][]byte{"balancing-load.svg": s.drawLoads(all), "balancing-apart.svg": s.drawApart(all)} {
				if err := os.WriteFile(filepath.Join(*docs, name), drawn, 0o644); err != nil {
					return err
				}
			}
		}
	}
	if *sidecar == "" {
		return nil
	}
	return r.run(ctx, *sidecar, out, progress, form)
}
