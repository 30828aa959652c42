// Package accesslog writes a line for each request: JSON for programs, or one for people where they look at a terminal. It never waits for
// whoever reads the log, a line is one line whatever apps and providers say, and no key is in one. docs/access-log.md says what the fields
// mean.
package accesslog

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/terminal"
)

// Name is the value of the field "logger" of each line. The diagnostics, which kubectl logs shows among them, have others.
const Name = "access"

// timeForm is RFC 3339 in UTC, with milliseconds always, so that lines can be sorted as text.
const timeForm = "2006-01-02T15:04:05.000Z07:00"

// Form is how lines are written.
type Form uint8

// The forms.
const (
	JSON   Form = iota
	People      // short and coloured
)

// FormFor gives the form for who reads what is written to w.
func FormFor(w io.Writer) Form {
	if terminal.Is(w) {
		return People
	}
	return JSON
}

// Log writes lines. Make it with New.
type Log struct {
	to      io.Writer
	form    Form
	of      launch.Identity
	encoder zapcore.Encoder
	lines   sync.Pool
}

// New makes a log that writes to a writer that never waits and keeps nothing of what it is handed. Each line says whose calls these are.
func New(to io.Writer, form Form, of launch.Identity) *Log {
	for _, name := range []*string{&of.Pod, &of.Namespace, &of.Workload, &of.ServiceAccount, &of.Node} {
		*name = string(clean(nil, *name))
	}
	l := &Log{to: to, form: form, of: of, encoder: zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey: "time", NameKey: "logger", EncodeTime: zapcore.TimeEncoderOfLayout(timeForm), EncodeName: zapcore.FullNameEncoder, SkipLineEnding: true,
	})}
	escaper := zapcore.NewJSONEncoder(zapcore.EncoderConfig{SkipLineEnding: true})
	l.lines.New = func() any { return &line{escaper: escaper} }
	return l
}

// Record writes the line of a request, if the settings want one.
func (l *Log) Record(r *record.Record, s *telemetry.Settings) {
	if !wanted(r, s) {
		return
	}
	e := l.lines.Get().(*line)
	e.record, e.settings, e.of = r, s, &l.of
	if l.form == People {
		e.people = e.appendPeople(e.people[:0])
		_, _ = l.to.Write(e.people) // which never fails
	} else if b, err := l.encoder.EncodeEntry(zapcore.Entry{Time: r.Start.UTC(), LoggerName: Name}, nil); err == nil {
		e.out = append(e.out[:0], bytes.TrimSuffix(b.Bytes(), []byte{'}'})...)
		b.Free()
		e.fields()
		e.out = append(e.out, "}\n"...)
		_, _ = l.to.Write(e.out)
	}
	e.record, e.settings = nil, nil
	l.lines.Put(e)
}

// wanted tells whether a request gets a line. One with a capture has been chosen already.
func wanted(r *record.Record, s *telemetry.Settings) bool {
	switch {
	case s.AccessLog.Level == telemetry.Off:
		return false
	case faulty(r) || captured(r, s):
		return true
	case s.AccessLog.Level == telemetry.Errors:
		return false
	}
	return s.AccessLog.Sample >= 1 || rand.Float64() < s.AccessLog.Sample
}

// faulty tells whether a request was refused, failed, retried or cut.
func faulty(r *record.Record) bool {
	return r.Code != "" || r.Status >= 400 || r.Status == 0 || r.Retries > 0 || r.Cut != record.Nobody
}

// captured tells whether the line has prompt and answer. Who took them has looked at the time as well: this is a second lock.
func captured(r *record.Record, s *telemetry.Settings) bool {
	return r.Capture != nil && s.Capture != nil && r.Start.Before(s.Capture.Until)
}

// Missing gives what is written in place of lines that nobody took in time.
func (f Form) Missing(lines int) []byte {
	now := time.Now()
	if f == People {
		return appendPeopleMissing(nil, now, lines)
	}
	b := now.UTC().AppendFormat([]byte(`{"time":"`), timeForm)
	return appendNumber(append(b, `","logger":"`+Name+`","missing_lines":`...), lines, "}\n")
}
