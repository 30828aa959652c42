package main

import (
	"bytes"
	"encoding/json"
	stdlog "log"
	"testing"
)

func TestWhatTheHTTPServerLogsIsAJSONLineToo(t *testing.T) {
	before, flags := stdlog.Writer(), stdlog.Flags()
	t.Cleanup(func() { stdlog.SetOutput(before); stdlog.SetFlags(flags) })
	var out bytes.Buffer
	newLog(&out)
	stdlog.Print("http: TLS handshake error")
	var line struct{ Logger, Msg string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Logger != "http" || line.Msg != "http: TLS handshake error" {
		t.Errorf("%v: %s", err, out.String())
	}
}
