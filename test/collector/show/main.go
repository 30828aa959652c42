// show takes spans at 127.0.0.1:4318, or the address that it is given, and prints each trace as a tree.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"remora.dev/remora/test/collector"
)

func main() {
	addr := "127.0.0.1:4318"
	if len(os.Args) > 1 {
		addr = os.Args[1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := collector.Start(collector.Options{Addr: addr})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer c.Close()
	fmt.Fprintln(os.Stdout, "traces.endpoint:", c.URL)
	for shown := 0; c.Await(ctx, func() bool { return len(c.Spans()) > shown }) == nil; {
		spans := c.Spans()
		collector.Write(os.Stdout, spans[shown:])
		shown = len(spans)
	}
}
