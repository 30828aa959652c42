// Provider is the fake LLM provider as a program, for a pod of a test:
//
//	provider ADDRESS HOST=KEY...
//
// is each HOST there, and demands its KEY. It says first whom a caller has to trust, in PEM, and then of each request, in one
// line, what came of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"remora.dev/remora/test/llmserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: provider ADDRESS HOST=KEY [HOST=KEY]..., all of them")
	}
	options := llmserver.Options{Addr: args[0], Keys: map[string]string{}}
	for _, one := range args[1:] {
		host, key, ok := strings.Cut(one, "=")
		if !ok {
			return fmt.Errorf("%q is not HOST=KEY", one)
		}
		options.Hosts = append(options.Hosts, host)
		options.Keys[host] = key
	}
	server, err := llmserver.Start(options)
	if err != nil {
		return err
	}
	defer server.Close()
	fmt.Fprintf(out, "%s", server.CAPEM())
	for n := 1; ; n++ {
		requests, err := server.AwaitEnded(ctx, n)
		if err != nil {
			return err
		}
		r := requests[n-1]
		fmt.Fprintln(out, r.Status, r.Method, "https://"+r.Host+r.Path)
	}
}
