package monitoring

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

// call is a kind of call that apps make, with what the provider does to it.
type call struct {
	host, body, fault string
	leave             bool // the app leaves after the first bytes
	often             int
}

const (
	streamed = `{"stream":true,"messages":[{"role":"user","content":"Tell me of the remora, which travels with its host."}]}`
	whole    = `{"messages":[{"role":"user","content":"How far does a remora travel?"}]}`
)

var calls = []call{
	{host: qwenHost, body: streamed, fault: "first-token=%dms chunks=20 chunk-delay=4ms cached=6", often: 8},
	{host: qwenHost, body: whole, fault: "delay=%dms chunks=30 cached=4 reasoning=9", often: 4},
	{host: kimiHost, body: streamed, fault: "first-token=%dms chunks=30 chunk-delay=4ms", often: 5},
	{host: openHost, body: strings.Replace(whole, "{", `{"model":"gpt-4o-mini",`, 1), fault: "delay=%dms", often: 4},
	{host: "chat", body: streamed, fault: "first-token=%dms chunks=12 chunk-delay=3ms", often: 2},
	{host: "lost", body: whole, fault: "status=503 retry-after=0", often: 2},
	{host: downHost, body: whole, often: 1},
	{host: qwenHost, body: streamed, fault: "chunks=200 chunk-delay=20ms", leave: true, often: 1},
	{host: kimiHost, body: streamed, fault: "cut-after=4 chunks=20", often: 1},
	{host: kimiHost, body: whole, fault: "status=500", often: 1},
	{host: qwenHost, body: `{"messages":[],"messages":[]}`, often: 1},
}

// load has apps call at each sidecar until ctx ends: a few calls at a time, of all kinds.
func (r *rig) load(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, s := range r.targets {
		if s.listen == "" || s.labels["namespace"] == "kept" {
			continue
		}
		client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.listen}), MaxIdleConnsPerHost: 8}}
		for range 4 {
			r.caller(ctx, t, client, "", 60*time.Millisecond)
		}
	}
	r.caller(ctx, t, &http.Client{}, fmt.Sprintf("http://127.0.0.1:%d/v1/chat/completions", r.port), 60*time.Millisecond)
}

// caller calls once a tick, or as soon as the call before has ended.
func (r *rig) caller(ctx context.Context, t *testing.T, client *http.Client, gateway string, every time.Duration) {
	t.Helper()
	ended := make(chan struct{})
	t.Cleanup(func() { <-ended; client.CloseIdleConnections() })
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			r.one(ctx, client, gateway, calls)
		}
	}()
}

func (r *rig) one(ctx context.Context, client *http.Client, gateway string, kinds []call) {
	var all []call
	for _, c := range kinds {
		for range c.often {
			all = append(all, c)
		}
	}
	c := all[rand.IntN(len(all))]
	to, host := "http://"+c.host+"/", c.host
	if gateway != "" {
		c, to, host = call{body: strings.Replace(whole, "{", `{"model":"qwen2.5-7b",`, 1)}, gateway, "models.example.com"
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(c.body))
	if err != nil {
		return
	}
	q.Host = host
	if c.fault != "" {
		if strings.Contains(c.fault, "%d") {
			c.fault = fmt.Sprintf(c.fault, int(25+40*rand.ExpFloat64()))
		}
		q.Header.Set(llmserver.FaultHeader, c.fault)
	}
	a, err := client.Do(q)
	if err != nil {
		return // that is what some are for
	}
	defer a.Body.Close()
	if c.leave {
		_, _ = a.Body.Read(make([]byte, 100))
		return
	}
	_, _ = io.Copy(io.Discard, a.Body)
}
