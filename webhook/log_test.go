package main

import (
	"bytes"
	"encoding/json"
	"io"
	stdlog "log"
	"os"
	"testing"
)

func TestWhatTheHTTPServerLogsIsAJSONLineToo(t *testing.T) {
	before, flags := stdlog.Writer(), stdlog.Flags()
	t.Cleanup(func() { stdlog.SetOutput(before); stdlog.SetFlags(flags) })
	var out bytes.Buffer
	redirectHTTP(newLines(&out))
	stdlog.Print("http: TLS handshake error")
	var line struct{ Logger, Msg string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Logger != "http" || line.Msg != "http: TLS handshake error" {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestMain(m *testing.M) {
	newLog(io.Discard) // the libraries have one log for all tests
	os.Exit(m.Run())
}
