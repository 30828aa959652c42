package main

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
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
	// In which the lines of requests wait for each other.
	accessPause = 20 * time.Millisecond
)

// output writes in the background, so that a reader of the log that has stopped reading stalls no request.
// What does not fit into logRoom, and what nobody takes, is dropped and counted.
type output struct {
	to    io.Writer
	lost  func(lines int) []byte // what to write where lines are missing
	pause time.Duration          // in which further lines may come before one is written, since a call of the system for each is dear
	wake  chan struct{}
	hurry chan struct{} // there is no time for a pause
	ended chan struct{}
	drops atomic.Uint64

	mu      sync.Mutex
	waiting []byte
	missing int
	closed  bool

	// Of run alone.
	unsaid int  // lines that could not be written, and nothing there says so
	torn   bool // what could be written ends within a line
}

func newOutput(to io.Writer, pause time.Duration, lost func(lines int) []byte) *output {
	o := &output{to: to, lost: lost, pause: pause, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), ended: make(chan struct{})}
	go o.run()
	return o
}

// dropped gives how many lines have not been written.
func (o *output) dropped() uint64 { return o.drops.Load() }

// Write takes a line and never waits or fails.
func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	if o.missing > 0 || len(o.waiting)+len(line) > logRoom {
		o.missing++
		o.drops.Add(1)
	} else {
		o.waiting = append(o.waiting, line...)
	}
	hurry := len(o.waiting) > logRoom/4
	o.mu.Unlock()
	nudge(o.wake)
	if hurry {
		nudge(o.hurry)
	}
	return len(line), nil
}

func nudge(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // it will look anyway
	}
}

func (o *output) run() {
	defer close(o.ended)
	var lines []byte
	for range o.wake {
		if o.pause > 0 {
			select {
			case <-time.After(o.pause):
			case <-o.hurry:
			}
		}
		o.mu.Lock()
		lines, o.waiting = o.waiting, lines[:0]
		missing, closed := o.missing, o.closed
		o.missing = 0
		o.mu.Unlock()
		o.write(lines, missing)
		if closed {
			return
		}
		if cap(lines) > logRoom/2 {
			lines = nil // that of a reader who fell behind is given back; that of usual bursts would be had anew for each
		}
	}
}

// write writes lines, and that some are missing behind them. It says first what is missing from before.
func (o *output) write(lines []byte, missing int) {
	if o.unsaid > 0 {
		note := o.lost(o.unsaid)
		if o.torn {
			note = append([]byte{'\n'}, note...)
		}
		if _, ok := o.put(note); !ok {
			o.lose(bytes.Count(lines, []byte{'\n'}), missing)
			return
		}
		o.unsaid = 0
	}
	whole := len(lines)
	if missing > 0 {
		lines = append(lines, o.lost(missing)...)
	}
	if n, ok := o.put(lines); !ok {
		o.lose(bytes.Count(lines[min(n, whole):whole], []byte{'\n'}), missing)
	}
}

// put gives how many bytes were taken, and whether all of them were.
func (o *output) put(b []byte) (n int, ok bool) {
	if len(b) == 0 {
		return 0, true
	}
	n, err := o.to.Write(b) // there is nowhere else to say that this failed
	if n > 0 {
		o.torn = b[n-1] != '\n'
	}
	return n, err == nil
}

// lose counts lines that could not be written, beside those that have been counted already.
func (o *output) lose(lines, counted int) {
	o.unsaid += lines + counted
	o.drops.Add(uint64(lines))
}

// close writes what waits, if that takes no longer than logTime.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	nudge(o.wake)
	nudge(o.hurry)
	select {
	case <-o.ended:
	case <-time.After(logTime):
	}
}

// newLog writes for people where w is a terminal, and JSON where it is not. The log ends with close. level is one of package launch.
func newLog(w io.Writer, level string) (log logr.Logger, out *output) {
	encoder := terminal.Encoder(w)
	out = newOutput(w, 0, func(lines int) []byte {
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
