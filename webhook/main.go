// The webhook is the installation's control process. `webhook serve` judges LLMProviders and LLMRoutes at
// admission; `webhook control` writes their status. They are two Deployments of one binary, so that what
// answers the API server has no right that only the controller needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "unknown"

// errUsage is wrapped by errors of the command line.
var errUsage = errors.New("the command line is wrong")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // from the first signal on, the next has its usual effect
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run gives the exit code: 0 all is well, 1 it failed, 2 the command line is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "serve":
		err = serve(ctx, args, stderr)
	case "control":
		err = control(ctx, args, stderr)
	case "version":
		fmt.Fprintln(stdout, "webhook", version)
	default:
		fmt.Fprintf(stderr, "webhook: %q is not a command: use serve, control or version\n", command)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "webhook: %v\n", err)
		if errors.Is(err, errUsage) {
			fmt.Fprintf(stderr, "webhook %s --help lists the flags\n", command)
			return 2
		}
		return 1
	}
	return 0
}
