package sdk_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

// way is how requests reach the provider.
type way struct {
	name     string
	direct   bool
	trusting bool   // the SDK has to trust the provider's authority
	proxy    string // where the app names the sidecar as its HTTP proxy
}

var ways = []way{
	{name: "directly", direct: true, trusting: true},
	// The app knows nothing of the sidecar: that port 80 of the provider's name is the sidecar is what interception does.
	{name: "intercepted"},
	{name: "by proxy", proxy: "http://" + sidecarProxy},
}

// plan is what one SDK is to do in one way. It is also the input of node/saw.mjs.
type plan struct {
	Proxy string    `json:"proxy"`
	Calls []planned `json:"calls"`
}

type planned struct {
	Name      string            `json:"name"`
	Call      string            `json:"call"`
	Model     string            `json:"model"`
	Prompt    string            `json:"prompt"`
	BaseURL   string            `json:"baseURL"`
	Key       string            `json:"key"`
	Header    map[string]string `json:"header"`
	Retries   int               `json:"retries"`
	TimeoutMS int               `json:"timeoutMS"`
	Take      int               `json:"take"`
}

// markHeader tells the provider's record whose request it is.
const markHeader = "X-Test-Call"

func mark(sdk string, w way, s scenario) string { return sdk + ", " + w.name + ": " + s.name }

func planFor(sdk string, w way) plan {
	p := plan{Proxy: w.proxy}
	for _, s := range scenarios {
		host := cmp.Or(s.host, qwen)
		c := planned{
			Name: s.name, Call: s.call, Retries: s.retries, TimeoutMS: cmp.Or(s.timeout, 30_000), Take: s.take,
			Model: cmp.Or(s.model, providers[host].model), Prompt: cmp.Or(s.prompt, "What is the weather in Paris?"),
			BaseURL: "http://" + host + "/v1", Key: "the-sidecar-knows",
			Header: map[string]string{markHeader: mark(sdk, w, s)},
		}
		if w.direct {
			c.BaseURL, c.Key = "https://"+host+providers[host].base, providers[host].key
		}
		if s.fault != "" {
			c.Header[llmserver.FaultHeader] = s.fault
		}
		maps.Copy(c.Header, s.header)
		p.Calls = append(p.Calls, c)
	}
	return p
}

// compare runs all scenarios in all ways, and demands that they look the same to the SDK and to the provider. run gives
// what the SDK saw, by the scenario's name.
func compare(t *testing.T, sdk string, run func(way, plan) (map[string]map[string]any, error)) {
	t.Helper()
	saws := make([]map[string]map[string]any, len(ways))
	failures := make([]error, len(ways))
	var running sync.WaitGroup
	for i, w := range ways {
		running.Go(func() { saws[i], failures[i] = run(w, planFor(sdk, w)) })
	}
	running.Wait()
	for i, err := range failures {
		if err != nil {
			t.Fatalf("%s: %v", ways[i].name, err)
		}
	}
	requests := requestsOf(t, sdk)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			var direct experience
			for i, w := range ways {
				e := experience{saw: saws[i][s.name], requests: requests[mark(sdk, w, s)]}
				if e.saw == nil {
					t.Fatalf("%s: the SDK reported nothing", w.name)
				}
				e.check(t, s, w)
				if w.direct {
					direct = e
					continue
				}
				direct.same(t, e, s, w)
			}
		})
	}
}

// experience is one scenario in one way: what the SDK saw, and what the provider got.
type experience struct {
	saw      map[string]any
	requests []llmserver.Request
}

// check demands what does not depend on a comparison.
func (e experience) check(t *testing.T, s scenario, w way) {
	t.Helper()
	want, requests := s.want, cmp.Or(s.requests, 1)
	if !w.direct {
		requests = cmp.Or(s.through, requests)
		want = slices.Concat(want, s.differs)
	}
	seen := text(t, e.saw)
	for _, part := range want {
		if !strings.Contains(strings.ToLower(seen), strings.ToLower(part)) {
			t.Errorf("%s: the SDK saw no %s in %.3000s", w.name, part, seen)
		}
	}
	if strings.Contains(seen, "sk-") {
		t.Errorf("%s: the SDK saw a key in %s", w.name, seen)
	}
	if requests != anyNumber && len(e.requests) != max(requests, 0) {
		t.Errorf("%s: the provider got %d requests, want %d", w.name, len(e.requests), max(requests, 0))
	}
	if !s.leaves || len(e.requests) == 0 {
		return
	}
	// Both times are from one machine. A second is long for what takes a millisecond, so that a busy machine does not
	// fail the test; without notice of the departure, the provider would go on for ten seconds at least.
	left := time.UnixMilli(int64(e.saw["endedAt"].(float64)))
	last := e.requests[len(e.requests)-1]
	if late := last.Ended.Sub(left); !last.Aborted || late > time.Second {
		t.Errorf("%s: the provider noticed %s after the SDK had left (aborted: %v)", w.name, late, last.Aborted)
	}
}

// same demands that another way looks like the direct one.
func (e experience) same(t *testing.T, other experience, s scenario, w way) {
	t.Helper()
	mine, theirs := steady(e.saw), steady(other.saw)
	if s.differs != nil {
		for _, field := range []string{"status", "header", "error"} {
			delete(mine, field)
			delete(theirs, field)
		}
	}
	fields := maps.Clone(mine)
	maps.Copy(fields, theirs)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if !reflect.DeepEqual(mine[field], theirs[field]) {
			t.Errorf("the SDK sees another %s %s:\n  directly %.3000s\n  %s %.3000s", field, w.name, text(t, mine[field]), w.name, text(t, theirs[field]))
		}
	}
	for i := range min(len(e.requests), len(other.requests)) {
		if i > 0 && s.through != 0 {
			break // a retry of the sidecar's is compared with one of the SDK's, which counts its own in a header
		}
		a, b := received(e.requests[i]), received(other.requests[i])
		if !reflect.DeepEqual(a, b) {
			t.Errorf("the provider sees another request %s:\n  directly %.3000s\n  %s %.3000s", w.name, text(t, a), w.name, text(t, b))
		}
	}
}

// steady leaves out what may differ: the time at which the call ended, and these headers of the answer:
// Date, which is the time, and those of one connection only. The provider makes ids and times from the request, so they
// are compared like all else.
func steady(saw map[string]any) map[string]any {
	all := maps.Clone(saw)
	delete(all, "endedAt")
	header, ok := saw["header"].(map[string]any)
	if !ok {
		return all
	}
	kept := map[string]any{}
	for name, value := range header {
		switch http.CanonicalHeaderKey(name) {
		case "Date", "Connection", "Keep-Alive", "Transfer-Encoding":
		default:
			kept[name] = value
		}
	}
	all["header"] = kept
	return all
}

// received is what matters of a request at the provider. Left out are our mark, the headers of one connection, and
// Accept-Encoding: the sidecar asks for uncompressed answers, to be able to follow them.
func received(r llmserver.Request) map[string]any {
	header := r.Header.Clone()
	for _, name := range []string{markHeader, "Accept-Encoding", "Connection", "Keep-Alive"} {
		header.Del(name)
	}
	body := r.Body
	if kind, boundary, form := strings.Cut(header.Get("Content-Type"), "; boundary="); form {
		// A form has a random boundary.
		body = bytes.ReplaceAll(body, []byte(boundary), []byte("BOUNDARY"))
		header.Set("Content-Type", kind)
		header.Del("Content-Length")
		header.Del("Transfer-Encoding")
	}
	return map[string]any{"method": r.Method, "host": r.Host, "sni": r.SNI, "path": r.Path, "query": r.RawQuery, "header": header, "body": string(body)}
}

// requestsOf gives the requests of an SDK by their marks, once the provider is through with all of them.
func requestsOf(t *testing.T, sdk string) map[string][]llmserver.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ended := 0; ; ended++ {
		all, err := provider.AwaitEnded(ctx, ended)
		found := map[string][]llmserver.Request{}
		open := ""
		ended = 0
		for _, r := range all {
			mark := r.Header.Get(markHeader)
			if !r.Ended.IsZero() {
				ended++
			} else if strings.HasPrefix(mark, sdk+",") {
				open = mark
			}
			found[mark] = append(found[mark], r)
		}
		if open == "" {
			return found
		}
		if err != nil {
			t.Errorf("the provider is still busy with a request of %s", open)
			return found
		}
	}
}

// text is JSON for people to read.
func text(t *testing.T, v any) string {
	t.Helper()
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(fmt.Errorf("encode what was seen: %w", err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}
