// The demo shows what a newcomer gets: the article's manifests, a provider behind TLS, the sidecar between them
// and an app that is curl. Each step prints the command, runs it, and says what to notice; it ends with an error
// when something is not as it says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"remora.dev/remora/test/netns"
)

const (
	qwen     = "dashscope.aliyuncs.com"
	moonshot = "api.moonshot.cn"
	virtual  = "demo-llm-server"
)

func main() {
	// Both names are this machine, in a namespace that ends with the demo. Nothing outside is touched.
	netns.Enter(map[string]string{qwen: "127.0.0.1", moonshot: "127.0.0.1"})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		stop()
		if errors.Is(ctx.Err(), context.Canceled) {
			fmt.Fprintln(os.Stderr, "\ndemo: interrupted")
		} else {
			fmt.Fprintln(os.Stderr, "\ndemo:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	binary := "bin/sidecar"
	if len(args) > 0 {
		binary = args[0]
	}
	d, err := start(ctx, binary)
	if err != nil {
		return err
	}
	defer d.close()
	for i, step := range []func(*demo) error{
		(*demo).plainCall, (*demo).subscriber, (*demo).split, (*demo).stream, (*demo).edit, (*demo).refused,
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.step = i + 1
		if err := step(d); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	d.farewell()
	return nil
}
