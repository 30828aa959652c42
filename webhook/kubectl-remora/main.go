// kubectl-remora shows what sidecars and gateways do, to a person with a kubeconfig. It only reads: it changes nothing in the cluster, and has
// no right but those of whoever calls it. What pods say is not believed to be harmless: nothing of it reaches a terminal as it came.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// version is set by the linker.
var version = "unknown"

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // also: check has found something
	exitUsage  = 2
)

// completer is the name by which kubectl calls this program to complete `kubectl remora …`: a link to it.
const completer = "kubectl_complete-remora"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // from the first signal on, the next has its usual effect
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == completer {
		args = append([]string{"__complete"}, args...)
	}
	os.Exit(run(ctx, args, genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}))
}

// errUsage is wrapped by errors of the command line.
var errUsage = errors.New("the command line is wrong")

// errFound says that check has found something, which has been printed already.
var errFound = errors.New("something is wrong")

func run(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	root := newCommand(streams)
	root.SetArgs(args)
	called, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil, errors.Is(err, errLeft):
		return exitOK
	case errors.Is(err, errFound):
		return exitFailed
	}
	text := plainLines(strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
	fmt.Fprintf(streams.ErrOut, "kubectl remora: %s\n", text)
	if errors.Is(err, errUsage) {
		fmt.Fprintf(streams.ErrOut, "See '%s --help'.\n", strings.Replace(called.CommandPath(), "kubectl-remora", "kubectl remora", 1))
		return exitUsage
	}
	return exitFailed
}

// usage makes an error of the command line.
func usage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errUsage}, args...)...)
}
