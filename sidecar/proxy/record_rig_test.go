package proxy_test

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/test/llmserver"
)

// recorder keeps copies of the records that a proxy tells of.
type recorder struct {
	mu   sync.Mutex
	all  []record.Record
	news chan struct{}
}

func newRecorder() *recorder { return &recorder{news: make(chan struct{}, 1<<16)} }

func (c *recorder) option(o *proxy.Options) { o.Done = c.done }

func (c *recorder) done(r *record.Record, s *telemetry.Settings) {
	kept := *r
	kept.Attempts = slices.Clone(r.Attempts)
	if r.Capture != nil {
		kept.Capture = &record.Capture{Prompt: bytes.Clone(r.Capture.Prompt), Answer: bytes.Clone(r.Capture.Answer),
			PromptTruncated: r.Capture.PromptTruncated, AnswerTruncated: r.Capture.AnswerTruncated}
	}
	c.mu.Lock()
	c.all = append(c.all, kept)
	c.mu.Unlock()
	c.news <- struct{}{}
}

func (c *recorder) records() []record.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// await gives the records once there are n of them.
func (c *recorder) await(t *testing.T, n int) []record.Record {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		all := c.records()
		if len(all) > n {
			t.Fatalf("%d records, want %d: %+v", len(all), n, all)
		}
		if len(all) == n {
			return all
		}
		select {
		case <-c.news:
		case <-limit:
			t.Fatalf("%d records, want %d: %+v", len(all), n, all)
		}
	}
}

// only gives the only record of what has been asked so far, and forgets it.
func (c *recorder) only(t *testing.T) record.Record {
	t.Helper()
	all := c.await(t, 1)
	c.mu.Lock()
	c.all = nil
	c.mu.Unlock()
	return all[0]
}

// observed is a rig whose records are kept.
func observed(t *testing.T, config string) (*rig, *recorder) {
	t.Helper()
	c := newRecorder()
	return newRig(t, config, c.option), c
}

// telemetry publishes other settings beside the same configuration.
func (r *rig) telemetry(change func(*telemetry.Settings)) {
	now := *r.store.Load()
	s := telemetry.Default()
	change(s)
	r.store.Publish(&snapshot.Snapshot{Table: now.Table, Problems: now.Problems, Ready: now.Ready, Telemetry: s})
}

// billed gives what the provider has reported, once it knows that the answer was sent.
func (r *rig) billed(host string) llmserver.Tokens {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		if u := r.provider.Tally(host).Reported; u.Answers > 0 {
			return u
		}
		if time.Now().After(end) {
			r.t.Fatal("the provider has reported nothing")
		}
	}
}
