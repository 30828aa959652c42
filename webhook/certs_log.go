package main

import (
	"github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// libraryLog makes cert-manager's lines lines of ours. It writes what happens to the authority at its level 2 and its chatter
// at 0, and calls it an error when another replica was faster.
func libraryLog(log logr.Logger) logr.Logger {
	sink := log.GetSink()
	if sink == nil {
		return log
	}
	if deep, ok := sink.(logr.CallDepthLogSink); ok {
		sink = deep.WithCallDepth(1)
	}
	return logr.New(libraryLines{sink}).WithName("cert-manager")
}

type libraryLines struct{ logr.LogSink }

func ourLevel(level int) int {
	if level == logs.InfoLevel {
		return 0
	}
	return 1
}

// Init does nothing: the sink within is in use already.
func (libraryLines) Init(logr.RuntimeInfo) {}

func (s libraryLines) Enabled(level int) bool { return s.LogSink.Enabled(ourLevel(level)) }

func (s libraryLines) Info(level int, message string, keysAndValues ...any) {
	s.LogSink.Info(ourLevel(level), message, keysAndValues...)
}

func (s libraryLines) Error(err error, message string, keysAndValues ...any) {
	if apierrors.IsConflict(err) {
		if s.LogSink.Enabled(1) {
			s.LogSink.Info(1, message, append(keysAndValues, "conflict", err.Error())...)
		}
		return
	}
	s.LogSink.Error(err, message, keysAndValues...)
}

func (s libraryLines) WithValues(keysAndValues ...any) logr.LogSink {
	return libraryLines{s.LogSink.WithValues(keysAndValues...)}
}

func (s libraryLines) WithName(name string) logr.LogSink {
	return libraryLines{s.LogSink.WithName(name)}
}
