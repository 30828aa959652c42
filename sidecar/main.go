// The sidecar runs beside an app and brings its plain HTTP calls to LLM providers. It links nothing that
// it does not need: there is one of it in every pod.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

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
	case launch.Proxy:
		err = serve(ctx, a, newLog(stderr))
	}
	switch {
	case err == nil:
		return exitOK
	case !errors.Is(err, errInvalid):
		fmt.Fprintf(stderr, "sidecar: %v\n", err)
	}
	return exitFailed
}

// newLog writes for people where w is a terminal, and JSON where it is not.
func newLog(w io.Writer) logr.Logger {
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(config)
	if isTerminal(w) {
		config.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		config.EncodeLevel = zapcore.CapitalColorLevelEncoder
		encoder = zapcore.NewConsoleEncoder(config)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), zap.InfoLevel)
	// An app that calls in vain without pause must not fill the disk: of equal messages, 100 a second and then every 100th.
	return zapr.NewLogger(zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 100, 100)))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == ""
}
