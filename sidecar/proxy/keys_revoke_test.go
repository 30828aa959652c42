package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/llmserver"
)

const grace = "  revocationGracePeriod: "

// begun is a stream of which the app has the first event, and that the provider does not end before revoked has been called.
type begun struct {
	t    *testing.T
	rig  *rig
	body io.ReadCloser
	in   *bufio.Reader
}

func (r *rig) begin(path, body string) *begun {
	r.t.Helper()
	resp, err := r.open(r.t.Context(), "POST", "http://chat"+path, body)
	if err != nil || resp.StatusCode != 200 {
		r.t.Fatalf("%+v %v", resp, err)
	}
	r.t.Cleanup(func() { _ = resp.Body.Close() })
	b := &begun{r.t, r, resp.Body, bufio.NewReader(resp.Body)}
	if line, err := b.in.ReadString('\n'); err != nil {
		r.t.Fatalf("%q %v", line, err)
	}
	return b
}

// rest gives what comes until the stream ends.
func (b *begun) rest() string {
	b.t.Helper()
	text, err := io.ReadAll(b.in)
	if err != nil {
		b.t.Errorf("the stream breaks off: %v", err)
	}
	return string(text)
}

const responsesStream = `{"stream":true,"model":"m","input":"one two three four"}`

func TestAStreamEndsAsTheUserChoseWhenItsKeyIsTakenAway(t *testing.T) {
	for name, path := range map[string]string{"chat": "/v1/chat/completions", "responses": "/v1/responses"} {
		body := map[string]string{"chat": streamed, "responses": responsesStream}[name]
		for _, gone := range []string{"the key", "the provider"} {
			t.Run(name+", without "+gone, func(t *testing.T) {
				after := func(spec string) string {
					if gone == "the provider" {
						return providers
					}
					return keyedBy(qwen, spec, "a=")
				}
				// Nothing chosen: to its end.
				r := newRig(t, keyedBy(qwen, "", "a=sk-a"))
				r.provider.Script("", llmserver.Fault{ChunkDelay: 20 * time.Millisecond, Chunks: 20})
				s := r.begin(path, body)
				r.apply(after(""))
				if text := s.rest(); strings.Contains(text, "KeyRevoked") || !strings.Contains(text, "DONE") && !strings.Contains(text, "response.completed") {
					t.Errorf("the stream ends in %q", text)
				}

				for _, period := range []time.Duration{0, 300 * time.Millisecond} {
					spec := grace + period.String() + "\n"
					r.apply(keyedBy(qwen, spec, "a=sk-a"))
					r.provider.Unscript()
					r.provider.Script("", llmserver.Fault{StallAfter: new(2)})
					s = r.begin(path, body)
					aborted := make(chan error, 1)
					go func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						_, err := r.provider.AwaitAborted(ctx)
						aborted <- err
					}()
					begun := time.Now()
					r.apply(after(spec))
					text := s.rest()
					if took := time.Since(begun); took < period {
						t.Errorf("cut after %s instead of %s", took, period)
					}
					if !strings.Contains(text, `"code":"KeyRevoked"`) || !strings.Contains(text, "taken away") || !strings.HasSuffix(text, "}\n\n") {
						t.Errorf("the stream ends in %q", text)
					}
					if strings.Contains(text, "event: error") != (name == "responses") {
						t.Errorf("the stream ends in %q", text)
					}
					if err := <-aborted; err != nil {
						t.Errorf("the provider goes on: %v", err)
					}
				}
				if n := r.failures()["KeyRevoked"]; n != 2 {
					t.Errorf("%d failures were counted", n)
				}
				if r.log.find(`"msg"="answer cut" "provider"="LLMProvider default/keyed" "key"="secret a/apiKey" "code"="KeyRevoked"`) == "" {
					t.Errorf("the log says %s", r.log.find("answer cut"))
				}
				r.settled()
			})
		}
	}
}

// settled asserts that nothing is held for keys that are not there.
func (r *rig) settled() {
	r.t.Helper()
	r.await(openConnections, r.gauge(idleConnections))
	await(r.t, func() bool { return len(r.keyRequests()) == 0 })
	r.hides(r.t)
}

func TestAKeyThatComesBackCutsNothing(t *testing.T) {
	const spec = grace + "2s\n"
	with, without := keyedBy(qwen, spec, "a=sk-a"), keyedBy(qwen, spec, "a=")
	r := newRig(t, with)
	r.provider.Script("", llmserver.Fault{ChunkDelay: 150 * time.Millisecond, Chunks: 20})
	s := r.begin("", streamed)
	r.apply(without)
	r.apply(keyedBy(qwen, spec, "a=sk-other"))
	if text := s.rest(); strings.Contains(text, "KeyRevoked") || !strings.HasSuffix(text, "data: [DONE]\n\n") {
		t.Errorf("the stream ends in %q", text)
	}
	// And that it was taken away before says nothing when it is taken away again.
	r.provider.Unscript()
	r.provider.Script("", llmserver.Fault{StallAfter: new(2)})
	r.apply(with)
	s = r.begin("", streamed)
	for range 3 {
		r.apply(without)
		r.apply(with)
	}
	begun := time.Now()
	r.apply(without)
	if text := s.rest(); !strings.Contains(text, "KeyRevoked") || time.Since(begun) < 2*time.Second {
		t.Errorf("after %s the stream ends in %q", time.Since(begun), text)
	}
}

// Who wants answers cut that began before he said so, says so and then takes the key away.
func TestTheGracePeriodIsTheLastThatTheKeyHad(t *testing.T) {
	r := newRig(t, keyedBy(qwen, "", "a=sk-a"))
	r.provider.Script("", llmserver.Fault{StallAfter: new(2)})
	s := r.begin("", streamed)
	r.apply(keyedBy(qwen, grace+"0s\n", "a=sk-a"))
	r.apply(keyedBy(qwen, grace+"0s\n", "a="))
	if text := s.rest(); !strings.Contains(text, "KeyRevoked") {
		t.Errorf("the stream ends in %q", text)
	}
}

// A changed value is no revocation, but who then takes the key away means the answers of both values.
func TestAnAnswerOfAnOlderValueIsCutWithItsKey(t *testing.T) {
	r := newRig(t, keyedBy(qwen, grace+"0s\n", "a=sk-a", "b=sk-b"))
	r.provider.Script("", llmserver.Fault{StallAfter: new(2), Times: -1})
	s := r.begin("", streamed)
	key := strings.TrimPrefix(r.last().Header.Get("Authorization"), "Bearer sk-")
	other := map[string]string{"a": "b", "b": "a"}[key]
	// Not that of another key, nor a changed one.
	r.apply(keyedBy(qwen, grace+"0s\n", key+"=sk-renewed", other+"="))
	if r.log.find("answer cut") != "" {
		t.Error(r.log.find("answer cut"))
	}
	r.apply(keyedBy(qwen, grace+"0s\n", key+"=", other+"=sk-other"))
	if text := s.rest(); !strings.Contains(text, "KeyRevoked") {
		t.Errorf("the stream ends in %q", text)
	}
}

func TestAnAnswerThatHasNotBegunIsCutToo(t *testing.T) {
	for name, c := range map[string]struct {
		fault  llmserver.Fault
		body   string
		rule   string
		status int // 0: the answer breaks off
	}{
		"no head":                 {llmserver.Fault{Delay: time.Hour}, prompt, "", 503},
		"no first event":          {llmserver.Fault{FirstToken: time.Hour, HeadersEarly: true}, streamed, "", 200},
		"a first event, awaited":  {llmserver.Fault{FirstToken: time.Hour, HeadersEarly: true}, streamed, ", retryOn: [first-token]", 503},
		"the middle of an object": {llmserver.Fault{StallAfter: new(2)}, prompt, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			with := strings.Replace(keyedBy(qwen, grace+"0s\n", "a=sk-a"), "attempts: 0", "attempts: 1"+c.rule, 1)
			r := newRig(t, with)
			for range 2 { // the second time on a connection that was used before
				r.provider.Unscript()
				r.apply(with)
				if got := r.do("POST", "http://chat", prompt); got.status != 200 {
					t.Fatalf("%+v", got)
				}
				r.provider.Reset()
				r.provider.Script("", c.fault)
				answered := make(chan reply, 1)
				headed := make(chan struct{})
				go func() {
					var got reply
					if resp, err := r.open(t.Context(), "POST", "http://chat", c.body); err == nil {
						close(headed)
						text, err := io.ReadAll(resp.Body)
						if got = (reply{resp.StatusCode, resp.Header, string(text)}); err != nil {
							got.status = 0
						}
						_ = resp.Body.Close()
					}
					answered <- got
				}()
				if _, err := r.provider.Await(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				if c.status != 503 {
					<-headed
				}
				r.apply(keyedBy(qwen, grace+"0s\n", "a="))
				got := <-answered
				switch {
				case got.status != c.status:
					t.Errorf("%+v", got)
				case c.status == 503:
					got.wantError(t, 503, routing.KeyRevoked, "secret a/apiKey", "ask again")
				case c.status == 200 && !strings.Contains(got.body, "KeyRevoked"):
					t.Errorf("%+v", got)
				}
				if n := r.provider.Received(); n != 1 {
					t.Errorf("the provider got %d requests", n)
				}
			}
			r.settled()
		})
	}
}

func TestAnUploadIsCutWithItsKey(t *testing.T) {
	r := newRig(t, keyedBy(qwen, grace+"0s\n", "a=sk-a"))
	contentType, body := form(t, 3<<20, "model=m", "file")
	w := r.dial()
	w.send("POST /v1/audio/transcriptions HTTP/1.1\r\nHost: chat\r\nContent-Type: " + contentType + "\r\n" + lengthOf(body) + "\r\n" + body[:2<<20])
	await(t, func() bool { return r.provider.Connections() > 0 })
	r.await(openConnections, 1)
	await(t, func() bool {
		r.apply(keyedBy(qwen, grace+"0s\n", "a="))
		return r.log.find("KeyRevoked") != ""
	})
	got, err := w.receive("POST")
	if err != nil {
		t.Fatal(err)
	}
	got.wantError(t, 503, routing.KeyRevoked)
	_ = w.Close()
	r.settled()
}

func TestAWebSocketEndsAsTheUserChoseWhenItsKeyIsTakenAway(t *testing.T) {
	r := newRig(t, keyedBy(qwen, "", "a=sk-a"))
	r.redirect()
	begin := func() *websocket.Conn {
		ws, err := realtime(t, r.dial().Conn, "chat", "?model=m")
		if err != nil {
			t.Fatal(err)
		}
		hears(t, ws, "session.created")
		return ws
	}
	ws := begin()
	r.apply(keyedBy(qwen, "", "a="))
	says(t, ws, `{"type":"a"}`)
	hears(t, ws, `{"type":"a"}`)
	_ = ws.Close()

	for _, period := range []time.Duration{0, 300 * time.Millisecond} {
		spec := grace + period.String() + "\n"
		r.apply(keyedBy(qwen, spec, "a=sk-a"))
		ws = begin()
		since := time.Now()
		r.apply(keyedBy(qwen, spec, "a="))
		var got string
		if err := websocket.Message.Receive(ws, &got); err == nil || strings.Contains(err.Error(), "timeout") || time.Since(since) < period {
			t.Errorf("after %s: %q %v", time.Since(since), got, err)
		}
	}
	await(t, func() bool { return r.failures()["KeyRevoked"] == 2 })
	if n := r.log.times(`"msg"="answer cut" "provider"="LLMProvider default/keyed" "key"="secret a/apiKey" "code"="KeyRevoked"`); n != 2 {
		t.Errorf("%d lines in the log", n)
	}
	r.settled()
}

// Every stream is cut, and who does not read holds up nobody.
func TestARevocationReachesEveryStream(t *testing.T) {
	r := newRig(t, keyedBy(qwen, grace+"0s\n", "a=sk-a"))
	r.provider.Script("", llmserver.Fault{Chunks: 1 << 16}, llmserver.Fault{StallAfter: new(2), Times: -1})
	slow := r.dial() // which reads nothing
	slow.send("POST / HTTP/1.1\r\nHost: chat\r\n" + lengthOf(streamed) + "\r\n" + streamed)
	if _, err := r.provider.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var streams []*begun
	for range 20 {
		streams = append(streams, r.begin("", streamed))
	}
	r.apply(keyedBy(qwen, grace+"0s\n", "a="))
	for _, s := range streams {
		if text := s.rest(); !strings.Contains(text[max(0, len(text)-500):], "KeyRevoked") {
			t.Errorf("a stream ends in %q", text[max(0, len(text)-500):])
		}
	}
	await(t, func() bool { return r.failures()["KeyRevoked"] >= 20 })
	_ = slow.Close()
	r.settled()
}

// Keys come, go and change while apps call: each answer is whole, or says what became of its key; and nothing is left of those
// that are no more.
func TestKeysThatChangeAtEveryMoment(t *testing.T) {
	r := newRig(t, keyedBy(qwen, grace+"0s\n", "a=sk-a"))
	var tables []*snapshot.Snapshot
	add := func(spec string, keys ...string) {
		r.apply(keyedBy(qwen, spec, keys...))
		tables = append(tables, r.store.Load())
	}
	for _, spec := range []string{grace + "0s\n", grace + "3ms\n", ""} {
		add(spec, "a=sk-a", "b=sk-b", "c=sk-c")
		add(spec, "a=sk-a2", "b=sk-b2", "c=")
		add(spec, "a=", "b=sk-b", "c=sk-c")
		add(spec, "a=", "b=", "c=")
		add(spec, "d=sk-d")
	}
	r.apply(keyedBy(qwen, "", "a=sk-a", "b=sk-b"))
	r.provider.Script("", llmserver.Fault{ChunkDelay: time.Millisecond, Chunks: 3, Times: -1})
	var done atomic.Bool
	var whole, cut atomic.Int64
	var asking sync.WaitGroup
	for i := range 16 {
		body := []string{prompt, streamed}[i%2]
		asking.Go(func() {
			for !done.Load() {
				got, err := r.try("POST", "http://chat", body)
				switch {
				case err == nil && got.status == 200 && !strings.Contains(got.body, "KeyRevoked"):
					whole.Add(1)
				case err == nil && (strings.Contains(got.body, "KeyRevoked") || strings.Contains(got.body, "SecretNotFound")):
					cut.Add(1)
				case err != nil && got.status == 200: // the middle of an object
					cut.Add(1)
				default:
					t.Errorf("%+v %v", got, err)
					return
				}
			}
		})
	}
	for end := time.Now().Add(time.Minute); (whole.Load() < 200 || cut.Load() < 200) && time.Now().Before(end) && !t.Failed(); {
		for range 20 {
			r.store.Publish(tables[rand.N(len(tables))])
		}
		<-time.After(time.Millisecond)
	}
	done.Store(true)
	asking.Wait()
	t.Logf("%d answers were whole, %d not", whole.Load(), cut.Load())
	if whole.Load() < 200 || cut.Load() < 200 {
		t.Error("too few")
	}
	r.apply(providers)
	r.settled()
}

// Ten thousand keys, one after the other, each of which is used and refused, leave nothing behind.
func TestKeysThatAreNoMoreLeaveNothing(t *testing.T) {
	b := newTeller(t, func(key string, _ http.Header) int {
		if strings.HasSuffix(key, "-bad") {
			return 401
		}
		return 200
	})
	r := newRig(t, providers)
	series := func() int { return strings.Count(r.exposed(), "\n") }
	before := series()
	for i := range 625 {
		var keys []string
		for j := range 16 {
			keys = append(keys, fmt.Sprintf("k%dx%d=sk-%d-%d", i, j, i, j))
		}
		keys[0] += "-bad"
		r.apply(b.configure(grace+"1h\n", keys...))
		if got := r.do("POST", "http://chat", prompt); got.status != 200 {
			t.Fatalf("%+v", got)
		}
	}
	r.apply(providers)
	if n := series() - before; n > 30 { // of the provider's own
		t.Errorf("%d series are left", n)
	}
	if r.gauge("remora_resting_keys") != 0 {
		t.Error("keys rest that are no more")
	}
	r.settled()
}
