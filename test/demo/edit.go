package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// tally counts the calls of several clients.
type tally struct {
	mu      sync.Mutex
	calls   int
	failed  []string
	lastOld time.Time // when the last call on the old route began
	newOnes int
}

func (t *tally) add(begin time.Time, model string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	switch {
	case err != nil:
		t.failed = append(t.failed, err.Error())
	case strings.Contains(model, "qwen"):
		t.lastOld = begin
	default:
		t.newOnes++
	}
}

// edit moves all traffic by an edit of a file while eight clients call without pause.
func (d *demo) edit() error {
	d.title("An edit takes effect while calls run")
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxyAddr}), MaxIdleConnsPerHost: 8,
	}}
	defer client.CloseIdleConnections()
	var t tally
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				begin := time.Now()
				body, err := callOnce(client)
				t.add(begin, body, err)
			}
		})
	}
	d.say("Eight clients call " + virtual + " without pause, half of them answered by each provider. Meanwhile:")
	d.wait(500 * time.Millisecond)
	change := `sed --in-place '0,/weight: 50/s//weight: 0/; s/weight: 50/weight: 100/' ` + filepath.Join(d.config, virtual+".yaml")
	d.command(d.short(change))
	d.output(d.sh("grep --max-count 4 --after-context 1 providerHost " + filepath.Join(d.config, virtual+".yaml")))
	edited := time.Now()
	out := d.sh(change)
	written := time.Now()
	if out != "" {
		close(stop)
		clients.Wait()
		return fmt.Errorf("the edit failed: %s", out)
	}
	d.wait(time.Second)
	close(stop)
	clients.Wait()
	d.output(d.sh("grep --max-count 4 --after-context 1 providerHost " + filepath.Join(d.config, virtual+".yaml")))
	if len(t.failed) > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with %s", len(t.failed), t.calls, t.failed[0])
	}
	if t.newOnes == 0 || t.lastOld.After(edited.Add(900*time.Millisecond)) {
		return fmt.Errorf("the edit had no effect")
	}
	d.notice("%d calls, 0 failed. The last call on the old route began %d ms after the file was written.",
		t.calls, max(0, t.lastOld.Sub(written).Milliseconds()))
	d.pause()
	return nil
}

func (d *demo) wait(t time.Duration) {
	select {
	case <-d.ctx.Done():
	case <-time.After(t):
	}
}

func callOnce(client *http.Client) (string, error) {
	resp, err := client.Post("http://"+virtual, "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
