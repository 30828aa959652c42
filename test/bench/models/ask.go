package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"remora.dev/remora/test/bench/modelserver"
)

// asked is what became of the calls that were sent: the time until the first token of each, in the order of their arrival.
type asked struct {
	first []time.Duration
	by    map[string]int // calls by server
}

// ask sends calls at their times, whether or not those before have been answered, and reads each answer to its end.
func ask(ctx context.Context, url, host string, arrivals []modelserver.Arrival) (asked, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}}
	defer client.CloseIdleConnections()
	all := asked{first: make([]time.Duration, len(arrivals)), by: map[string]int{}}
	var mu sync.Mutex
	var calls sync.WaitGroup
	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, a := range arrivals {
		due := begin.Add(a.At)
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		calls.Go(func() {
			server, first, err := one(ctx, client, url, host, a, due)
			if err != nil {
				cancel(fmt.Errorf("call %d: %w", i, err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all.first[i] = first
			all.by[server]++
		})
	}
	calls.Wait()
	return all, context.Cause(ctx)
}

// one gives who answered a call, and how long after its time the first token was there.
func one(ctx context.Context, client *http.Client, url, host string, a modelserver.Arrival, due time.Time) (server string, first time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(promptOf(a.Prompt)))
	if err != nil {
		return "", 0, err
	}
	req.Host = host
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(promptHead, strconv.Itoa(a.Prompt))
	req.Header.Set(outputHead, strconv.Itoa(a.Output))
	resp, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	tokens, done := 0, false
	for lines.Scan() {
		switch line := lines.Bytes(); {
		case bytes.Contains(line, []byte(`"content":`)):
			if tokens++; tokens == 1 {
				first = time.Since(due)
			}
		case bytes.Equal(line, []byte("data: [DONE]")):
			done = true
		}
	}
	if err := lines.Err(); err != nil {
		return "", 0, err
	}
	if resp.StatusCode != http.StatusOK || !done || tokens != a.Output {
		return "", 0, fmt.Errorf("answered %s with %d of %d tokens", resp.Status, tokens, a.Output)
	}
	return resp.Header.Get(servedHead), first, nil
}
