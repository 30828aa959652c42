// Command soak runs a sidecar under mixed load, faults and aborts for a long time, and then looks for what has leaked:
// goroutines, connections, memory, tokens.
//
//	go run ./test/soak -for 30m
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"remora.dev/remora/test/netns"
)

func main() {
	netns.Enter(names)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	var s settings
	flags.DurationVar(&s.length, "for", 30*time.Minute, "how long, with the warm-up and the rest at the end, which may take up to two minutes more")
	flags.IntVar(&s.calls, "calls", 0, "in place of -for: how many calls; then it is only compared what they are told to have cost")
	flags.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "what all choices follow from")
	flags.IntVar(&s.apps, "apps", 24, "how many apps call at the same time")
	flags.StringVar(&s.sidecar, "sidecar", "", "a sidecar that is built already; by default it is built first")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.calls == 0 && s.length < 20*time.Second {
		return fmt.Errorf("-for is %s: nothing could be said after less than 20s", s.length)
	}
	return run(ctx, s, out)
}
