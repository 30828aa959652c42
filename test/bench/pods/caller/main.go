// Caller is an app that calls an LLM, for the benchmark of pods. It says what it saw in lines of JSON:
//
//	caller HOST N
//
// makes N calls, which the pod's redirection leads to the sidecar, and then calls until it is told to end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// line is what it says. The benchmark reads the same.
type line struct {
	// Took is what the first N calls took, in nanoseconds. Said once, at first.
	Took []time.Duration `json:",omitempty"`
	// Model is the one that answers from now on: the answer that showed it came at Answered, in nanoseconds since 1970.
	Model    string `json:",omitempty"`
	Answered int64  `json:",omitempty"`
	// Failed is why a call failed.
	Failed string `json:",omitempty"`
	// Calls are all so far, failed ones too.
	Calls int
}

// pause between two calls: the benchmark is not about load.
const pause = time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: caller HOST N")
	}
	host := args[0]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	say := json.NewEncoder(out)
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
	var now line
	failed := func(err error) error {
		return say.Encode(line{Failed: err.Error(), Calls: now.Calls})
	}
	for range n + 1 { // the first is not counted: it connects
		began := time.Now()
		now.Calls++
		if _, err := ask(ctx, client, host); err != nil {
			return failed(err)
		}
		now.Took = append(now.Took, time.Since(began))
	}
	now.Took = now.Took[1:]
	if err := say.Encode(now); err != nil {
		return err
	}
	now.Took = nil
	for tick := time.NewTicker(pause); ; {
		select {
		case <-ctx.Done():
			return say.Encode(line{Calls: now.Calls})
		case <-tick.C:
		}
		now.Calls++
		model, err := ask(context.WithoutCancel(ctx), client, host)
		switch {
		case err != nil:
			err = failed(err)
		case model != now.Model:
			now.Model, now.Answered = model, time.Now().UnixNano()
			err = say.Encode(now)
		}
		if err != nil {
			return err
		}
	}
}

// ask gives the model that answers.
func ask(ctx context.Context, client *http.Client, host string) (model string, err error) {
	body := strings.NewReader(`{"messages":[{"role":"user","content":"hello"}]}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/", body)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var answer struct{ Model string }
	if err := json.Unmarshal(text, &answer); err != nil || resp.StatusCode != http.StatusOK || answer.Model == "" {
		return "", fmt.Errorf("answered %s: %.300s", resp.Status, text)
	}
	return answer.Model, nil
}
