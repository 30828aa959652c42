// The sidecar runs beside an app and brings its plain HTTP calls to LLM providers. It links nothing that
// it does not need: there is one of it in every pod. As a gateway, the same process stands at the edge of a cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"remora.dev/remora/sidecar/accesslog"
	"remora.dev/remora/sidecar/launch"
)

// version is set by the linker.
var version = "unknown"

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // also: something is invalid
	exitUsage  = 2
)

// errInvalid says that what was checked is invalid, which has been printed already.
var errInvalid = errors.New("the configuration is invalid")

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a, err := launch.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "sidecar: %v\nsidecar help explains the commands.\n", err)
		return exitUsage
	}
	switch a.Command {
	case launch.Help:
		fmt.Fprint(stdout, launch.Usage)
	case launch.Version:
		fmt.Fprintln(stdout, "sidecar", version, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	case launch.Check:
		err = check(a, stdout)
	case launch.Proxy, launch.Gateway:
		signal.Ignore(syscall.SIGPIPE) // requests matter more than the log, which may have lost its reader
		log, out := newLog(stderr, a.LogLevel)
		defer out.close()
		stderr = out
		form := accesslog.FormFor(stdout)
		access := newOutput(stdout, accessPause, form.Missing)
		defer access.close()
		if err = harden(); err == nil {
			err = serve(ctx, a, log, logs{diagnostics: out, access: access, form: form})
		}
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, launch.ErrNoConfiguration):
		fmt.Fprintf(stderr, "sidecar: %v\nsidecar help explains the commands.\n", err)
		return exitUsage
	case !errors.Is(err, errInvalid):
		fmt.Fprintf(stderr, "sidecar: %v\n", err)
	}
	return exitFailed
}
