//go:build linux

// The demo shows what a newcomer gets: the mesh's own walkthrough on a real Kubernetes, with the app and the providers in pods.
// Each step prints a command, runs it, and says what to notice; the demo ends with an error where something is not as it says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `The walkthrough, live. From the top of the repository:

  go run ./test/demo                      on a Kubernetes of one node that it starts on this machine, as root
  go run ./test/demo -cluster current     in the cluster that kubectl points at, in two namespaces of its own
  go run ./test/demo -gateway             the gateway instead, before servers that it balances
  go run ./test/demo -down                end the Kubernetes that it started

Further flags:
`

// options are what the command line says.
type options struct {
	cluster  string
	name     string
	folder   string
	registry string
	gateway  bool
	end      bool
	down     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case interrupted:
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted")
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.cluster, "cluster", "", `"current" for the one that kubectl points at`)
	flags.StringVar(&o.name, "name", "remora-demo", "what the cluster on this machine is called")
	flags.StringVar(&o.folder, "folder", "bin/demo", "where the manifests of the walkthrough are put")
	flags.StringVar(&o.registry, "registry", os.Getenv("REGISTRY"),
		"with -cluster current: where the images are that `make images` and this demo make, such as registry.example.com/remora ($REGISTRY)")
	flags.BoolVar(&o.gateway, "gateway", false, "show the gateway, which balances calls over servers, and not the walkthrough")
	flags.BoolVar(&o.end, "end", false, "end the cluster on this machine with the demo")
	flags.BoolVar(&o.down, "down", false, "end the cluster on this machine, and do nothing else")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q is too much: there are only flags, see -help", flags.Args())
	case o.cluster != "" && o.cluster != "current":
		return o, fmt.Errorf("-cluster is %q: write current, or leave it out for a cluster on this machine", o.cluster)
	case o.cluster != "" && o.gateway:
		return o, errors.New("-gateway needs a cluster of its own: leave -cluster out")
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.down {
		return down(ctx, o.name)
	}
	d, err := newDemo(ctx, o)
	if err != nil {
		return err
	}
	defer d.close()
	return d.play()
}

// play is the whole of it.
func (d *demo) play() error {
	began := time.Now()
	acts := []func() error{d.open, d.trust, d.raise}
	steps := []func() error{d.deploy, d.firstCall, d.subscriber, d.split, d.change, d.streamAndPass, d.keyless, d.watch}
	if d.options.gateway {
		acts = []func() error{d.open, d.serve}
		steps = []func() error{d.edge, d.four, d.evenly, d.comeAndGo, d.policies}
	}
	for _, act := range acts {
		if err := act(); err != nil {
			return d.explained(err)
		}
	}
	for i, step := range steps {
		if d.ctx.Err() != nil {
			return d.ctx.Err()
		}
		d.step = i + 1
		if err := step(); err != nil {
			return d.explained(fmt.Errorf("step %d: %w", d.step, err))
		}
	}
	d.farewell(time.Since(began))
	return nil
}
