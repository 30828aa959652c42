package proxy_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/llmserver"
)

// While a thousand configurations follow each other, with other endpoints and other policies, no request fails; and what
// only the old ones used is given up once its last stream has ended.
func TestAThousandChangesOfTheConfigurationFailNoRequest(t *testing.T) {
	r := newRig(t, "")
	authority := string(r.provider.CAPEM())
	// Each number of copies is another endpoint: another pool.
	config := func(i int) string {
		return fmt.Sprintf(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen}
spec:
  host: %s
  tls: {caBundle: %s}
  trafficPolicy: {connectionPool: {tcp: {maxConnections: %d, maxConnectionDuration: %ds, connectTimeout: 5m}}}
  configs: {defaultConfig: {openAIConfig: {model: qwen-1.8b-chat, apiKey: sk-qwen-0123456789}}}
`, qwen, base64.StdEncoding.EncodeToString([]byte(strings.Repeat(authority, 1+i/3%7))), 4+i%5, 1+i%2)
	}
	const different = 3 * 7 * 5 * 2 // after so many, they repeat
	tables := make([]*routing.Table, different)
	for i := range tables {
		var o routing.Objects
		if _, err := o.Decode([]byte(config(i)), "default"); err != nil {
			t.Fatal(err)
		}
		tables[i], _ = routing.Compile(o, &routing.Workload{Namespace: "default"})
	}
	publish := func(i int) { r.store.Publish(&snapshot.Snapshot{Table: tables[i%different], Ready: true}) }
	publish(0)
	r.provider.Script("", llmserver.Fault{ChunkDelay: time.Millisecond, Times: -1})

	var done atomic.Bool
	var answered, streamsEnded atomic.Int64
	var asking sync.WaitGroup
	for range 6 {
		asking.Go(func() {
			for !done.Load() {
				got, err := r.try("POST", "http://"+qwen, prompt)
				if err != nil || got.status != 200 {
					t.Errorf("a call: %d %s %v", got.status, got.body, err)
					return
				}
				answered.Add(1)
			}
		})
		asking.Go(func() {
			for !done.Load() {
				got, err := r.try("POST", "http://"+qwen, streamed)
				if err != nil || got.status != 200 || !strings.HasSuffix(got.body, "data: [DONE]\n\n") {
					t.Errorf("a stream: %d %s %v", got.status, got.body, err)
					return
				}
				streamsEnded.Add(1)
			}
		})
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := range 1000 {
		<-tick.C
		publish(i)
	}
	done.Store(true)
	asking.Wait()
	t.Logf("%d calls, %d streams, %d connections", answered.Load(), streamsEnded.Load(), r.provider.Connections())
	if answered.Load() < 100 || streamsEnded.Load() < 100 {
		t.Errorf("only %d calls and %d streams were tried", answered.Load(), streamsEnded.Load())
	}
	if o, i := r.gauge(openConnections), r.gauge(idleConnections); o != i || o > 12 {
		t.Errorf("%d connections are open, %d of them idle", o, i)
	}

	// The last pool goes while a stream is under way on it.
	r.provider.Unscript()
	r.provider.Script("", llmserver.Fault{ChunkDelay: 20 * time.Millisecond, Chunks: 20})
	resp, err := r.open(t.Context(), "POST", "http://"+qwen, streamed)
	if err != nil {
		t.Fatal(err)
	}
	r.publish("", "")
	r.await(openConnections, 1)
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(text), "data: [DONE]\n\n") {
		t.Errorf("the stream ends in %q: %v", text, err)
	}
	_ = resp.Body.Close()
	r.await(openConnections, 0)
	r.client.CloseIdleConnections()
	for _, of := range []string{"llmserver.(*connection)", "proxy.(*pool)", "proxy.connect"} {
		for end := time.Now().Add(30 * time.Second); ; <-time.After(5 * time.Millisecond) {
			stacks := make([]byte, 4<<20)
			left := strings.Count(string(stacks[:runtime.Stack(stacks, true)]), of)
			if left == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d goroutines of %s are left", left, of)
			}
		}
	}
}
