package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

// appHeader tells the provider whose call it is.
const appHeader = "X-App"

// callEvery is the time from one call of an app to its next. Together they leave most of this machine to those who are measured.
const callEvery = 20 * time.Millisecond

// crew is sidecars with an app beside each, which calls all the time, and what its provider and its apps saw of their keys.
type crew struct {
	host     string
	provider *llmserver.Server
	sidecars []*installation.Sidecar

	mu      sync.Mutex
	changed chan struct{}        // closed by what comes next
	used    map[string]time.Time // when a key came last
	key     []string             // by app: that of its last call
	code    []string             // by app: of its last call's error; empty for an answer
	revoked bool                 // calls may be refused
	refused func(key string) bool
	calls   int
	failed  []string
}

func newCrew(host string, apps int) (*crew, error) {
	c := &crew{host: host, changed: make(chan struct{}), used: map[string]time.Time{}, key: make([]string, apps), code: make([]string, apps)}
	var err error
	c.provider, err = llmserver.Start(llmserver.Options{Hosts: []string{host}, Quiet: true, Told: c.came, Revoked: c.isRefused})
	return c, err
}

func keyOf(h http.Header) string { return strings.TrimPrefix(h.Get("Authorization"), "Bearer ") }

// came is told of each request by the provider.
func (c *crew) came(r llmserver.Request) {
	app, err := strconv.Atoi(r.Header.Get(appHeader))
	key := keyOf(r.Header)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && app < len(c.key) {
		c.key[app] = key
	}
	if r.Time.After(c.used[key]) {
		c.used[key] = r.Time
	}
	c.tell()
}

func (c *crew) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *crew) isRefused(h http.Header) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused != nil && c.refused(keyOf(h))
}

func (c *crew) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// run calls until ctx ends, and lets what is under way end.
func (c *crew) run(ctx context.Context) {
	var apps sync.WaitGroup
	for i, s := range c.sidecars {
		apps.Go(func() {
			client := s.Client()
			defer client.CloseIdleConnections()
			tick := time.NewTicker(callEvery)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				c.mu.Lock()
				before := c.revoked
				c.mu.Unlock()
				code, err := c.ask(context.WithoutCancel(ctx), client, i)
				c.note(i, before, code, err)
			}
		})
	}
	apps.Wait()
}

// ask gives the code of the error that answers a call; none where it is answered well.
func (c *crew) ask(ctx context.Context, client *http.Client, app int) (code string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.host+"/", strings.NewReader(`{"messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		return "", err
	}
	req.Header.Set(appHeader, strconv.Itoa(app))
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusOK {
		return "", err
	}
	var body struct{ Error struct{ Code string } }
	if err := json.Unmarshal(text, &body); err != nil || body.Error.Code == "" {
		return "", fmt.Errorf("answered %s: %.300s", resp.Status, text)
	}
	return body.Error.Code, nil
}

// revocations are the codes that a call may be refused with once its key was taken away.
var revocations = []string{"SecretNotFound", "KeyRevoked"}

// note takes in what became of a call. before tells whether it might have been refused when it began.
func (c *crew) note(app int, before bool, code string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.code[app] = code
	switch {
	case err != nil:
		c.failed = append(c.failed, err.Error())
	case code == "" || (before || c.revoked) && slices.Contains(revocations, code):
	default:
		c.failed = append(c.failed, code)
	}
	c.tell()
}

// allWith waits until the last call of each app has come with a key.
func (c *crew) allWith(ctx context.Context, key string) error {
	return c.await(ctx, "have called with the new key", func(app int) bool { return c.key[app] == key })
}

// allRefused waits until the last call of each app was refused for want of a key.
func (c *crew) allRefused(ctx context.Context) error {
	return c.await(ctx, "are refused for want of a key", func(app int) bool { return slices.Contains(revocations, c.code[app]) })
}

func (c *crew) await(ctx context.Context, what string, is func(app int) bool) error {
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		n := 0
		for app := range c.key {
			if is(app) {
				n++
			}
		}
		if n == len(c.key) {
			return nil
		}
		changed := c.changed
		c.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-limit.C:
			err = fmt.Errorf("after 2 minutes only %d of %d apps %s", n, len(c.key), what)
		case <-ctx.Done():
			err = ctx.Err()
		}
		c.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// count gives what was called and what failed since it was asked last.
func (c *crew) count() (calls int, failed []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls, failed = c.calls, c.failed
	c.calls, c.failed = 0, nil
	return calls, failed
}

// after gives, for each of the keys, the time until it came last.
func (c *crew) after(keys []string, began []time.Time) (all []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range keys {
		all = append(all, max(0, c.used[key].Sub(began[i])))
	}
	return all
}
