package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// stuck takes the log up to the line that says what is served, and then no more.
type stuck struct {
	seen    []byte
	serving chan string // the address that is served
	forever chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	s.seen = append(s.seen, p...)
	for line := range bytes.Lines(s.seen) {
		var said struct {
			Msg    string
			Listen []string
		}
		if json.Unmarshal(line, &said) == nil && said.Msg == "serving" {
			s.serving <- said.Listen[0]
			<-s.forever
		}
	}
	return len(p), nil
}

func TestALogThatNobodyReadsStallsNeitherRequestsNorTheEnd(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stderr := &stuck{serving: make(chan string, 1), forever: make(chan struct{})}
	defer close(stderr.forever)
	code := make(chan int, 1)
	config := write(t, "all.yaml", valid)
	go func() {
		code <- run(ctx, []string{"proxy", "--config", config, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0"}, io.Discard, stderr)
	}()
	url := "http://" + <-stderr.serving
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 5 {
		res, err := client.Get(url) // of no known host: this is logged
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	stop()
	select {
	case c := <-code:
		if c != 0 {
			t.Errorf("exit code %d", c)
		}
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
}

// gated is a reader of the log that reads when it is let.
type gated struct {
	got     bytes.Buffer
	reading chan struct{} // gets one value for each Write that has begun
	goOn    chan struct{}
}

func (g *gated) Write(p []byte) (int, error) {
	g.reading <- struct{}{}
	<-g.goOn
	return g.got.Write(p)
}

func TestTheLogSaysWhereLinesAreMissing(t *testing.T) {
	reader := &gated{reading: make(chan struct{}, 100), goOn: make(chan struct{})}
	log, out := newLog(reader, "")
	log.Info("first")
	<-reader.reading // and waits
	const lines = 2000
	for i := range lines {
		log.Info(fmt.Sprintf("line %d %s", i, strings.Repeat("x", 1000)))
	}
	close(reader.goOn)
	out.close()
	log.Info("after the end") // does no harm
	got := strings.Split(strings.TrimSpace(reader.got.String()), "\n")
	var last struct {
		Level, Msg string
		Lines      int
	}
	if err := json.Unmarshal([]byte(got[len(got)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if written := len(got) - 2; !strings.Contains(got[0], "first") || last.Level != "warn" || written < 100 || written+last.Lines != lines {
		t.Errorf("%d lines of %d, then %s", written, lines, got[len(got)-1])
	}
	if size := reader.got.Len(); size > logRoom+1000 {
		t.Errorf("%d bytes have waited", size)
	}
}

func TestTheSidecarOutlivesTheReaderOfItsLog(t *testing.T) {
	s := start(t, "--config", write(t, "all.yaml", valid))
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	if status, _ := s.get("http://" + s.listen); status < 400 {
		t.Errorf("a call to no known host: %d", status)
	}
	s.signal() // which it writes about too
	if err := s.process.Wait(); err != nil {
		t.Errorf("it did not end well: %v", err)
	}
}

func TestTheLogSaysAsMuchAsItIsAskedFor(t *testing.T) {
	for level, detailed := range map[string]bool{"": false, "info": false, "debug": true} {
		var got bytes.Buffer
		log, out := newLog(&got, level)
		log.Info("matters")
		log.V(1).Info("detail")
		out.close()
		if !strings.Contains(got.String(), "matters") || strings.Contains(got.String(), "detail") != detailed {
			t.Errorf("with level %q it says %s", level, got.String())
		}
	}
}
