package sdk_test

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"remora.dev/remora/test/llmserver"
)

// way is how requests reach the provider.
type way struct {
	name     string
	direct   bool
	trusting bool   // the SDK has to trust the provider's authority
	proxy    string // where the app names the sidecar as its HTTP proxy
	world    bool   // the app looks for the provider in the world, and iptables turn its connections to the sidecar
}

var ways = []way{
	{name: "directly", direct: true, trusting: true},
	{name: "by name"}, // the provider's name leads to the sidecar: a hosts file is all it takes on a developer's machine
	{name: "by proxy", proxy: "http://" + sidecarProxy},
	{name: "redirected", world: true},
}

// sdk is a client library that people use.
type sdk struct {
	name  string
	lacks []string // calls, or other needs of scenarios
	run   func(way, plan) (map[string]experience, error)
}

// plan is what one SDK is to do in one way. It is also the input of node/run.mjs.
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
	Leaves    bool              `json:"leaves"`
}

// markHeader tells the provider's record whose request it is.
const markHeader = "X-Test-Call"

func mark(sdk string, w way, s scenario) string { return sdk + ", " + w.name + ": " + s.name }

func (s sdk) scenarios() []scenario {
	return slices.DeleteFunc(slices.Concat(scenarios, mockScenarios), func(sc scenario) bool {
		return slices.Contains(s.lacks, sc.call) || slices.Contains(s.lacks, sc.needs)
	})
}

func (s sdk) plan(w way) plan {
	p := plan{Proxy: w.proxy}
	for _, sc := range s.scenarios() {
		host := cmp.Or(sc.host, qwen)
		c := planned{
			Name: sc.name, Call: sc.call, Retries: sc.retries, TimeoutMS: cmp.Or(sc.timeout, 60_000), Take: sc.take, Leaves: sc.leaves,
			Model: cmp.Or(sc.model, providers[host].model), Prompt: cmp.Or(sc.prompt, "What is the weather in Paris?"),
			BaseURL: "http://" + host + "/v1", Key: "the-sidecar-knows",
			Header: map[string]string{markHeader: mark(s.name, w, sc)},
		}
		if w.direct {
			c.BaseURL, c.Key = providers[host].base, providers[host].key
		}
		if sc.fault != "" {
			c.Header[llmserver.FaultHeader] = sc.fault
		}
		maps.Copy(c.Header, sc.header)
		p.Calls = append(p.Calls, c)
	}
	return p
}

// compare runs all scenarios that the SDK can do in all ways, and demands that they look the same to the SDK, on the
// wire beneath it, and to the provider.
func compare(t *testing.T, s sdk) {
	t.Helper()
	all := make([]map[string]experience, len(ways))
	failures := make([]error, len(ways))
	var running sync.WaitGroup
	for i, w := range ways {
		running.Go(func() { all[i], failures[i] = s.run(w, s.plan(w)) })
	}
	running.Wait()
	for i, err := range failures {
		if err != nil {
			t.Fatalf("%s: %v", ways[i].name, err)
		}
	}
	requests := arrivals(t, s.name)
	for _, sc := range s.scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			var direct experience
			for i, w := range ways {
				e, ok := all[i][sc.name]
				if !ok {
					t.Fatalf("%s: the SDK reported nothing", w.name)
				}
				e.arrived = requests[mark(s.name, w, sc)]
				e.check(t, sc, w)
				if w.direct {
					direct = e
					continue
				}
				direct.same(t, e, sc, w)
			}
		})
	}
}

// streamsWithUsage are the calls for which the sidecar asks for usage where an SDK does not.
var streamsWithUsage = []string{"stream", "streamWithUsage", "streamedTools", "streamedCompletion", "abort"}

// check demands what does not depend on a comparison.
func (e experience) check(t *testing.T, s scenario, w way) {
	t.Helper()
	seen, wire := text(t, e.Saw), e.onTheWire(t)
	wants := func(where, have string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(strings.ToLower(have), strings.ToLower(part)) {
				t.Errorf("%s: no %s %s:\n%.2000s", w.name, part, where, have)
			}
		}
	}
	wants("in what the SDK saw", seen, s.want...)
	wants("on the wire", wire, s.raw...)
	for _, p := range providers {
		const enough = 7 // of a key; providers that name one leave out the rest, and the ids of answers may have its first three letters
		if begin := p.key[:enough]; strings.Contains(seen, begin) || strings.Contains(wire, begin) {
			t.Errorf("%s: the SDK saw the key of %s in %s %s", w.name, p.base, seen, wire)
		}
	}
	if failed := e.failed(); failed != (s.ends == badly) && s.ends != either {
		t.Errorf("%s: the SDK failed: %v, want %v:\n%.2000s", w.name, failed, !failed, seen)
	}
	requests := cmp.Or(s.requests, 1)
	if !w.direct {
		requests = cmp.Or(s.through, requests)
		wants("on the wire or in what the SDK saw", wire+seen, s.differs...)
	}
	if requests != anyNumber && len(e.arrived) != max(requests, 0) {
		t.Errorf("%s: the provider got %d requests, want %d", w.name, len(e.arrived), max(requests, 0))
	}
	if slices.Contains(streamsWithUsage, s.call) {
		for _, a := range e.arrived {
			// So that it is known what was removed again.
			if asked := strings.Contains(a.body, `"include_usage":true`); !asked && !w.direct || asked && w.direct && s.call == "stream" {
				t.Errorf("%s: asked for usage: %v", w.name, asked)
			}
		}
	}
	if s.leaves && s.host != mocked && len(e.arrived) > 0 {
		e.checkDeparture(t, w)
	}
}
