package main

import (
	"io"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	controllerlog "sigs.k8s.io/controller-runtime/pkg/log"

	"remora.dev/remora/sidecar/terminal"
)

// newLog writes for people where w is a terminal, and JSON where it is not. What the libraries log goes there too: it is
// called once in a process, before all else.
func newLog(w io.Writer) logr.Logger {
	lines := newLines(w)
	log := zapr.NewLogger(lines)
	redirectHTTP(lines)
	controllerlog.SetLogger(log)
	klog.SetLogger(log.WithName("client"))
	return log
}

// redirectHTTP takes in what net/http says: it has no other way to tell of a handshake that failed.
func redirectHTTP(lines *zap.Logger) { zap.RedirectStdLog(lines.Named("http")) }

func newLines(w io.Writer) *zap.Logger {
	return zap.New(zapcore.NewCore(terminal.Encoder(w), zapcore.Lock(zapcore.AddSync(w)), zap.InfoLevel))
}
