package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// failures sums up remora_failures_total, by code.
func (r *rig) failures() map[string]int {
	all := map[string]int{}
	for _, m := range regexp.MustCompile(`remora_failures_total\{code="(\w+)"\} (\d+)`).FindAllStringSubmatch(r.exposed(), -1) {
		if n, _ := strconv.Atoi(m[2]); n > 0 {
			all[m[1]] = n
		}
	}
	return all
}

func TestAFailureIsCountedOnceUnderItsCode(t *testing.T) {
	for name, c := range map[string]struct {
		fault llmserver.Fault
		rule  string
		call  func(r *rig)
		code  routing.Code // empty: nothing failed that is the sidecar's to count
	}{
		"a good answer":                     {},
		"a status of the provider's":        {fault: llmserver.Fault{Status: 500}},
		"a provider that is asked again":    {fault: llmserver.Fault{Status: 500, Times: 1}, rule: "\n    retries: {retryOn: [5xx]}"},
		"reset":                             {fault: llmserver.Fault{Reset: true}, code: routing.UpstreamReset},
		"reset, three times":                {fault: llmserver.Fault{Reset: true}, rule: "\n    retries: {attempts: 2, retryOn: [reset]}", code: routing.UpstreamReset},
		"garbage":                           {fault: llmserver.Fault{Garbage: true}, code: routing.UpstreamInvalid},
		"no first token":                    {fault: llmserver.Fault{Delay: time.Hour}, rule: "\n    timeouts: {firstToken: 100ms}", code: routing.FirstTokenTimeout},
		"no first token after headers":      {fault: llmserver.Fault{FirstToken: time.Hour, HeadersEarly: true}, rule: "\n    timeouts: {firstToken: 100ms}", code: routing.FirstTokenTimeout},
		"no first token, which was awaited": {fault: llmserver.Fault{FirstToken: time.Hour, HeadersEarly: true}, rule: "\n    timeouts: {firstToken: 100ms}\n    retries: {attempts: 1, retryOn: [first-token]}", code: routing.FirstTokenTimeout},
		"a stream that is cut":              {fault: llmserver.Fault{CutAfter: new(2)}, code: routing.UpstreamReset},
		"a stream that stalls":              {fault: llmserver.Fault{StallAfter: new(2)}, rule: "\n    timeouts: {idle: 100ms}", code: routing.IdleTimeout},
		"a stream without end":              {fault: llmserver.Fault{ChunkDelay: 20 * time.Millisecond, Chunks: 2000}, rule: "\n    timeouts: {request: 300ms}", code: routing.DeadlineExceeded},
		"no time left":                      {fault: llmserver.Fault{Delay: time.Hour}, rule: "\n    timeouts: {request: 100ms}", code: routing.DeadlineExceeded},
		"a wrong method":                    {call: func(r *rig) { r.do("GET", "http://chat", "") }, code: routing.MethodNotAllowed},
		"no JSON":                           {call: func(r *rig) { r.do("POST", "http://chat", "hello") }, code: routing.InvalidJSON},
		"no HTTP":                           {call: func(r *rig) { _, _ = r.raw("hello\r\n\r\n") }, code: routing.InvalidRequest},
		"headers without end":               {call: func(r *rig) { _, _ = r.raw("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n") }, code: routing.InvalidRequest},
		"a connection without a request":    {call: func(r *rig) { r.dial().Close() }},
		"an app that leaves": {fault: llmserver.Fault{Delay: time.Hour}, code: routing.ClientGone, call: func(r *rig) {
			ctx, leave := context.WithCancel(r.t.Context())
			go func() {
				_, _ = r.provider.Await(ctx, 1)
				leave()
			}()
			if resp, err := r.open(ctx, "POST", "http://chat", prompt); err == nil {
				_ = resp.Body.Close()
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers+route("chat", "\n  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]"+c.rule))
			if c.fault != (llmserver.Fault{}) {
				if c.fault.Times == 0 {
					c.fault.Times = -1
				}
				r.provider.Script(qwen, c.fault)
			}
			if c.call == nil {
				c.call = func(r *rig) { _, _ = r.try("POST", "http://chat", streamed) }
			}
			c.call(r)
			deadline := time.After(20 * time.Second)
			for c.code != "" && len(r.failures()) == 0 { // the app may know before it is counted
				select {
				case <-deadline:
					t.Fatal("nothing is counted")
				case <-time.After(time.Millisecond):
				}
			}
			n := r.failures()
			if c.code == "" && len(n) > 0 || c.code != "" && (len(n) != 1 || n[string(c.code)] != 1) {
				t.Errorf("counted are %v, and it was %q", n, c.code)
			}
		})
	}
}

// remedy is how a message says what to do.
var remedy = regexp.MustCompile(`: (if .*, )?(check|raise|ask|use|call|correct|send|have|add|apply|connect|open|try|give|create|set|trust|leave)\b`)

func TestEveryFailureOfAProviderSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		fault llmserver.Fault
		rule  string
	}{
		"reset":                        {fault: llmserver.Fault{Reset: true}},
		"garbage":                      {fault: llmserver.Fault{Garbage: true}},
		"no first token":               {fault: llmserver.Fault{Delay: time.Hour}, rule: "\n    timeouts: {firstToken: 100ms}"},
		"no first token after headers": {fault: llmserver.Fault{FirstToken: time.Hour, HeadersEarly: true}, rule: "\n    timeouts: {firstToken: 100ms}"},
		"no time left":                 {fault: llmserver.Fault{Delay: time.Hour}, rule: "\n    timeouts: {request: 100ms}"},
		"a stream that is cut":         {fault: llmserver.Fault{CutAfter: new(2)}},
		"a stream that stalls":         {fault: llmserver.Fault{StallAfter: new(2)}, rule: "\n    timeouts: {idle: 100ms}"},
		"a stream without end":         {fault: llmserver.Fault{ChunkDelay: 20 * time.Millisecond, Chunks: 2000}, rule: "\n    timeouts: {request: 300ms}"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers+route("chat", "\n  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]"+c.rule))
			r.provider.Script(qwen, c.fault)
			got := r.do("POST", "http://chat", streamed)
			text := got.body
			if at := strings.LastIndex(text, "data: {"); at >= 0 {
				text = text[at+len("data: "):]
			}
			var e struct{ Error struct{ Message string } }
			if err := json.NewDecoder(strings.NewReader(text)).Decode(&e); err != nil || !remedy.MatchString(strings.TrimPrefix(e.Error.Message, "Remora: ")) {
				t.Errorf("what is to be done? %q", got.body)
			}
		})
	}
}

func TestAHeadThatIsTooLargeSaysWhoseItIs(t *testing.T) {
	r := newRig(t, rawConfig(""))
	serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 100<<10)+"\r\n\r\n")
		return false
	})
	r.do("POST", "http://raw", prompt).wantError(t, 502, routing.UpstreamInvalid, "larger than 64 KiB", "have the provider send less")
}
