package main

import (
	"io"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/terminal"
)

const (
	logRoom = 256 << 10   // bytes that wait for whoever reads the log, before lines are dropped
	logTime = time.Second // for what still waits at the end
)

// output writes in the background, so that a reader of the log that has stopped reading stalls no request.
// What does not fit into logRoom is dropped and counted.
type output struct {
	to    io.Writer
	lost  func(lines int) []byte // what to write where lines are missing
	wake  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	waiting []byte
	missing int
	closed  bool
}

func newOutput(to io.Writer, lost func(lines int) []byte) *output {
	o := &output{to: to, lost: lost, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go o.run()
	return o
}

// Write takes a line and never waits or fails.
func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	if o.missing > 0 || len(o.waiting)+len(line) > logRoom {
		o.missing++
	} else {
		o.waiting = append(o.waiting, line...)
	}
	o.mu.Unlock()
	o.signal()
	return len(line), nil
}

func (o *output) signal() {
	select {
	case o.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (o *output) run() {
	defer close(o.ended)
	var lines []byte
	for range o.wake {
		o.mu.Lock()
		lines, o.waiting = o.waiting, lines[:0]
		missing, closed := o.missing, o.closed
		o.missing = 0
		o.mu.Unlock()
		if missing > 0 {
			lines = append(lines, o.lost(missing)...)
		}
		_, _ = o.to.Write(lines) // there is nowhere to say that this failed
		if closed {
			return
		}
	}
}

// close writes what waits, if that takes no longer than logTime.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.signal()
	select {
	case <-o.ended:
	case <-time.After(logTime):
	}
}

// newLog writes for people where w is a terminal, and JSON where it is not. The log ends with close. level is one of package launch.
func newLog(w io.Writer, level string) (log logr.Logger, out *output) {
	encoder := terminal.Encoder(w)
	out = newOutput(w, func(lines int) []byte {
		entry := zapcore.Entry{Level: zap.WarnLevel, Time: time.Now(), Message: "lines of the log are missing here: it was not read fast enough"}
		line, err := encoder.EncodeEntry(entry, []zapcore.Field{zap.Int("lines", lines)})
		if err != nil {
			return nil
		}
		return line.Bytes()
	})
	least := zap.InfoLevel
	if level == launch.LogDebug {
		least = zap.DebugLevel
	}
	core := zapcore.NewCore(encoder, zapcore.AddSync(out), least)
	// An app that calls in vain without pause must not fill the disk: of equal messages, 100 a second and then every 100th.
	return zapr.NewLogger(zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 100, 100))), out
}
