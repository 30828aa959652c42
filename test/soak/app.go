package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"remora.dev/remora/test/llmserver"
)

// callLimit ends a call that would otherwise hang, and is wrong for it.
const callLimit = 60 * time.Second

// app makes one call after the other.
type app struct {
	w      *world
	r      *rand.Rand
	client *http.Client
}

func newApp(w *world, r *rand.Rand) *app {
	return &app{w: w, r: r, client: &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: w.listen}), DisableCompression: true,
	}}}
}

func (a *app) close() { a.client.CloseIdleConnections() }

// kind is a call that apps make, so often among all.
type kind struct {
	name   string
	share  int
	well   bool // it must not fail
	called func(*app, context.Context) error
}

var kinds = []kind{
	{"chat", 20, true, (*app).chat},
	{"stream", 20, true, (*app).stream},
	{"blunt stream", 4, true, (*app).bluntStream},
	{"response", 5, true, (*app).response},
	{"completion", 3, true, (*app).completion},
	{"embedding", 5, true, (*app).embedding},
	{"image", 2, true, (*app).image},
	{"upload", 3, true, (*app).upload},
	{"realtime", 3, true, (*app).realtime},
	{"large prompt", 2, true, (*app).largePrompt},
	{"compressed prompt", 3, true, (*app).compressedPrompt},
	{"slow reader", 1, true, (*app).slowReader},
	{"foreign host", 3, true, (*app).foreign},
	{"shaky provider", 8, false, (*app).shaky},
	{"fall-back", 8, false, (*app).fallBack},
	{"leaving a stream", 6, false, (*app).leaveStream},
	{"leaving before", 3, false, (*app).leaveBefore},
	{"leaving a request", 2, false, (*app).leaveRequest},
}

func (a *app) call() {
	all := 0
	for _, k := range kinds {
		all += k.share
	}
	n := a.r.IntN(all)
	for _, k := range kinds {
		if n -= k.share; n >= 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), callLimit)
		err := k.called(a, ctx)
		if ctx.Err() != nil {
			a.w.counts.wrong("%s: no end after %s", k.name, callLimit)
		}
		wait(ctx, time.Duration(a.r.IntN(10))*time.Millisecond) // an app has other things to do, too
		cancel()
		var refused *refusal
		var cut *cutOff
		switch {
		case err == nil:
			a.w.counts.add(k.name, "")
		case !k.well && errors.As(err, &refused):
			a.w.counts.add(k.name, refused.code)
		case !k.well && errors.As(err, &cut):
			a.w.counts.add(k.name, "cut")
		default:
			a.w.counts.add(k.name, "wrong")
			a.w.counts.wrong("%s: %v", k.name, err)
		}
		break
	}
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// refusal is an error that the sidecar or the provider says in OpenAI's shape.
type refusal struct {
	status int
	code   string
}

func (r *refusal) Error() string { return fmt.Sprintf("refused with %d %s", r.status, r.code) }

// cutOff is an answer that ended early and could be seen to.
type cutOff struct{ how string }

func (c *cutOff) Error() string { return "the answer was cut: " + c.how }

// marker is what an answer must bring back, so that no app gets another's.
func (a *app) marker() string { return fmt.Sprintf("m%016x", a.r.Uint64()) }

// words are a prompt of up to n words after the marker.
func (a *app) words(marker string, n int) string {
	return marker + strings.Repeat(" some words", a.r.IntN(n/2+1))
}

func (a *app) oneOf(all ...string) string { return all[a.r.IntN(len(all))] }

// well are hosts that answer every call.
func (a *app) well() string { return a.oneOf(steady, azure) }

// shape is a way of a good provider.
func (a *app) shape() string {
	return a.oneOf("", "", "", "", "split", "chunked", "keepalive-comments", "early-close", "chunks=50", "first-token=20ms headers=early",
		"cached=3 reasoning=5", "usage=own", "usage=last", "usage=running", "usage=none", "usage=last cached=2", "usage=running reasoning=9")
}

// post sends a body and gives the answer, if it is a good one.
func (a *app) post(ctx context.Context, host, path, body, fault string, headers ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if fault != "" {
		r.Header.Set(llmserver.FaultHeader, fault)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return a.do(r)
}

func (a *app) do(r *http.Request) (*http.Response, error) {
	answer, err := a.client.Do(r)
	if err != nil {
		return nil, &cutOff{err.Error()}
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, &cutOff{err.Error()}
	}
	var said struct {
		Error struct{ Code string }
	}
	if json.Unmarshal(raw, &said) != nil || said.Error.Code == "" {
		return nil, fmt.Errorf("%s without a code: %.200s", answer.Status, raw)
	}
	return nil, &refusal{answer.StatusCode, said.Error.Code}
}

// whole reads an answer that is JSON with the text in it.
func whole(answer *http.Response, text string) error {
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return &cutOff{err.Error()}
	}
	if !json.Valid(raw) || !strings.Contains(string(raw), text) {
		return fmt.Errorf("this is no answer with %q: %.200s", text, raw)
	}
	return nil
}
