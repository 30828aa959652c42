package proxy_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

const bank = "127.0.0.2"

// teller is a provider of TLS that judges the key of each request. answer may be nil: then every key is good.
type teller struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(key string, h http.Header) (status int)
	got    map[string]int // requests, by key
}

func newTeller(t *testing.T, answer func(key string, h http.Header) int) *teller {
	t.Helper()
	b := &teller{answer: answer, got: map[string]int{}}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		key := strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")
		b.mu.Lock()
		b.got[key]++
		answer := b.answer
		b.mu.Unlock()
		status := http.StatusOK
		if answer != nil {
			status = answer(key, w.Header())
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"status":%d}`, status)
	}))
	l, err := net.Listen("tcp", bank+":8443")
	if err != nil {
		t.Fatal(err)
	}
	b.Listener, b.Config.ErrorLog = l, log.New(io.Discard, "", 0)
	b.StartTLS()
	t.Cleanup(b.Close)
	return b
}

// sent tells how often each key was sent.
func (b *teller) sent() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]int{}
	for key, n := range b.got {
		all[key] = n
	}
	return all
}

func (b *teller) judge(answer func(key string, h http.Header) int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// configure gives a provider at the teller with these keys: NAME=VALUE, or NAME*WEIGHT=VALUE. A key without a value is not there.
func (b *teller) configure(more string, keys ...string) string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Certificate().Raw})
	return keyedBy(bank, "  port: 8443\n  tls: {caBundle: "+base64.StdEncoding.EncodeToString(ca)+", sni: example.com}\n"+more, keys...)
}

// keyedBy is a provider "keyed" with a route "chat" that tries nothing again; spec is YAML, two spaces deep.
func keyedBy(host, spec string, keys ...string) string {
	refs, secrets := "", ""
	for _, key := range keys {
		name, value, _ := strings.Cut(key, "=")
		name, weight, weighted := strings.Cut(name, "*")
		refs += "\n      - {name: " + name
		if weighted {
			refs += ", weight: " + weight
		}
		refs += "}"
		if value != "" {
			secrets += "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: " + name + "}\nstringData: {apiKey: " + value + "}"
		}
	}
	return "apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: keyed}\nspec:\n  host: " + host + "\n" + spec +
		"  configs: {defaultConfig: {openAIConfig: {model: m, apiKeyRefs: [" + strings.ReplaceAll(strings.TrimPrefix(refs, "\n      - "), "\n      - ", ", ") + "]}}}" +
		secrets + route("chat", "  - retries: {attempts: 0}\n    backendRefs: [{providerHost: "+host+"}]")
}

// keyRequests sums up remora_key_requests_total, by key and status.
func (r *rig) keyRequests() map[string]int {
	all := map[string]int{}
	for _, m := range regexp.MustCompile(`remora_key_requests_total\{provider="default/keyed",key="secret (\w+)/apiKey",status="(\w+)"\} (\d+)`).FindAllStringSubmatch(r.exposed(), -1) {
		all[m[1]+" "+m[2]], _ = strconv.Atoi(m[3])
	}
	return all
}

// hides asserts that no key's value is anywhere that people look.
func (r *rig) hides(t *testing.T) {
	t.Helper()
	if strings.Contains(r.exposed(), "sk-") {
		t.Error("the metrics have a key")
	}
}

func TestCallsAreSpreadOverKeysByWeightAndTold(t *testing.T) {
	b := newTeller(t, nil)
	r := newRig(t, b.configure("", "a*3=sk-a", "b*1=sk-b", "c*0=sk-c"))
	const n = 400
	for range n {
		if got := r.do("POST", "http://chat", prompt); got.status != 200 {
			t.Fatalf("%+v", got)
		}
	}
	// 300 of 400 are expected, and 60 away from it is seven times the standard deviation.
	sent := b.sent()
	if a := sent["sk-a"]; a < 240 || a > 360 || a+sent["sk-b"] != n {
		t.Errorf("sent: %v", sent)
	}
	if told := r.keyRequests(); told["a 2xx"] != sent["sk-a"] || told["b 2xx"] != sent["sk-b"] || len(told) != 2 {
		t.Errorf("sent %v, counted %v", sent, told)
	}
	if told := r.log.times(`"msg"="answered" "provider"="LLMProvider default/keyed" "key"="secret a/apiKey"`); told != sent["sk-a"] {
		t.Errorf("%d answers are in the log, of %d: %s", told, sent["sk-a"], r.log.find("answered"))
	}
	r.hides(t)
}

func TestARefusedKeyRestsWhileTheOthersCarryOn(t *testing.T) {
	for _, status := range []int{401, 403, 429} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			b := newTeller(t, func(key string, _ http.Header) int {
				if key == "sk-a" {
					return status
				}
				return 200
			})
			r := newRig(t, b.configure("", "a=sk-a", "b=sk-b", "c=sk-c"))
			for range 60 {
				if got := r.do("POST", "http://chat", prompt); got.status != 200 {
					t.Fatalf("%+v", got)
				}
			}
			if sent := b.sent(); sent["sk-a"] != 1 || sent["sk-b"] == 0 || sent["sk-c"] == 0 {
				t.Errorf("sent: %v", sent)
			}
			if n := r.log.times("KeyRefused"); n != 1 || r.log.find(`"key"="secret a/apiKey" "status"=`+strconv.Itoa(status)) == "" {
				t.Errorf("%d lines, of them %s", n, r.log.find("KeyRefused"))
			}
			if n := r.gauge("remora_resting_keys"); n != 1 {
				t.Errorf("%d keys rest", n)
			}
			if n := r.gauge(`remora_key_rests_total{provider="default/keyed",key="secret a/apiKey"}`); n != 1 {
				t.Errorf("%d rests", n)
			}
			if n := r.keyRequests()["a "+strconv.Itoa(status)]; n != 1 {
				t.Errorf("counted: %v", r.keyRequests())
			}
			if f := r.failures(); len(f) != 0 {
				t.Errorf("failures: %v", f)
			}
			r.hides(t)
		})
	}
}

func TestAKeyIsBackAfterTheTimeThatTheProviderAsksFor(t *testing.T) {
	var refused atomic.Bool
	var since, back atomic.Int64
	b := newTeller(t, func(key string, h http.Header) int {
		if key != "sk-a" {
			return 200
		}
		if refused.CompareAndSwap(false, true) {
			since.Store(time.Now().UnixNano())
			h.Set("Retry-After", "1")
			return 429
		}
		back.CompareAndSwap(0, time.Now().UnixNano())
		return 200
	})
	r := newRig(t, b.configure("", "a=sk-a", "b=sk-b"))
	for end := time.Now().Add(time.Minute); back.Load() == 0; {
		if got := r.do("POST", "http://chat", prompt); got.status != 200 {
			t.Fatalf("%+v", got)
		}
		if time.Now().After(end) {
			t.Fatal("the key did not come back")
		}
	}
	if rested := time.Duration(back.Load() - since.Load()); rested < time.Second {
		t.Errorf("the key rested for %s", rested)
	}
	r.await("remora_resting_keys", 0)
}

func TestWhereAllKeysRestTheAppGetsTheProvidersAnswer(t *testing.T) {
	b := newTeller(t, func(key string, h http.Header) int {
		h.Set("Retry-After", map[string]string{"sk-a": "100", "sk-b": "50", "sk-c": "200"}[key])
		return 429
	})
	r := newRig(t, b.configure("", "a=sk-a", "b=sk-b", "c=sk-c"))
	for i := range 5 {
		got := r.do("POST", "http://chat", prompt)
		if got.status != 429 || got.body != `{"status":429}` || got.header.Get("Retry-After") == "" || got.header.Get("X-Should-Retry") != "" {
			t.Errorf("%+v", got)
		}
		// The first call tries every key, and later ones that whose rest ends first.
		if sent, want := b.sent(), (map[string]int{"sk-a": 1, "sk-b": 1 + i, "sk-c": 1}); fmt.Sprint(sent) != fmt.Sprint(want) {
			t.Errorf("sent %v, want %v", sent, want)
		}
	}
	b.judge(nil)
	for range 2 {
		if got := r.do("POST", "http://chat", prompt); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	if sent := b.sent(); sent["sk-b"] != 7 {
		t.Errorf("sent: %v", sent)
	}
	if n := r.gauge("remora_resting_keys"); n != 2 {
		t.Errorf("%d keys rest, of which one serves again", n)
	}
}

func TestTheOnlyKeysRefusalIsTheApps(t *testing.T) {
	for _, status := range []int{401, 403, 429} {
		b := newTeller(t, func(string, http.Header) int { return status })
		r := newRig(t, b.configure("", "a=sk-a"))
		for range 3 {
			if got := r.do("POST", "http://chat", prompt); got.status != status {
				t.Errorf("%+v", got)
			}
		}
		if sent := b.sent(); sent["sk-a"] != 3 || r.log.find("KeyRefused") != "" || r.gauge("remora_resting_keys") != 0 {
			t.Errorf("sent: %v, log: %s", sent, r.log.find("KeyRefused"))
		}
		b.Close()
		r.client.CloseIdleConnections()
		r.provider.Close()
	}
}

// The rule's retries of 429 follow where no key is left, and count attempts, not keys.
func TestTheRulesRetriesComeAfterTheKeys(t *testing.T) {
	b := newTeller(t, func(_ string, h http.Header) int {
		h.Set("Retry-After", "0")
		return 429
	})
	r := newRig(t, strings.Replace(b.configure("", "a=sk-a", "b=sk-b"), "attempts: 0", "attempts: 2", 1))
	if got := r.do("POST", "http://chat", prompt); got.status != 429 || got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("%+v", got)
	}
	if sent := b.sent(); sent["sk-a"]+sent["sk-b"] < 4 || sent["sk-a"]+sent["sk-b"] > 6 {
		t.Errorf("sent: %v", sent)
	}
}

// What is passed on as it arrives cannot be sent again, and does not try keys that may be refused.
func TestWhatCannotBeSentAgainIsNot(t *testing.T) {
	b := newTeller(t, func(string, http.Header) int { return 401 })
	r := newRig(t, b.configure("", "a=sk-a", "b=sk-b"))
	contentType, body := form(t, 3<<20, "model=m", "file")
	got := r.do("POST", "http://chat/v1/audio/transcriptions", body, "Content-Type", contentType)
	if sent := b.sent(); got.status != 401 || sent["sk-a"]+sent["sk-b"] != 1 {
		t.Errorf("%d, sent: %v", got.status, sent)
	}
	if r.gauge("remora_resting_keys") != 1 {
		t.Error("the key does not rest")
	}
}

func TestAWebSocketGoesOnWithAnotherKey(t *testing.T) {
	r := newRig(t, keyedBy(qwen, "", "a=sk-a", "b=sk-b"))
	r.provider.Script("", llmserver.Fault{Status: 401})
	ws, err := realtime(t, r.dial().Conn, "chat", "?model=m")
	if err != nil {
		t.Fatal(err)
	}
	hears(t, ws, "session.created")
	all := r.provider.Requests()
	if len(all) != 2 || all[0].Header.Get("Authorization") == all[1].Header.Get("Authorization") {
		t.Errorf("%d requests", len(all))
	}
}

func TestAnyRefusalOfEveryKeyIsNotMultiplied(t *testing.T) {
	b := newTeller(t, func(string, http.Header) int { return 401 })
	r := newRig(t, b.configure("", "a=sk-a", "b=sk-b", "c=sk-c"))
	total := func() (n int) {
		for _, one := range b.sent() {
			n += one
		}
		return n
	}
	const apps = 100
	round := func() {
		var asking sync.WaitGroup
		for range apps {
			asking.Go(func() {
				if got, err := r.try("POST", "http://chat", prompt); err != nil || got.status != 401 {
					t.Errorf("%+v %v", got, err)
				}
			})
		}
		asking.Wait()
	}
	round()
	first := total()
	if first > 3*apps {
		t.Errorf("%d calls became %d requests", apps, first)
	}
	round()
	if n := total() - first; n != apps {
		t.Errorf("with all keys at rest, %d calls became %d requests", apps, n)
	}
	if n := r.log.times("KeyRefused"); n != 3 {
		t.Errorf("%d lines say so", n)
	}
}

// The provider accepts the old and the new key for as long as the Secret takes to be here, and no longer.
func TestAHundredRotationsFailNoRequest(t *testing.T) {
	for _, names := range [][]string{{"a"}, {"a", "b"}} {
		t.Run(strings.Join(names, ""), func(t *testing.T) {
			var good sync.Map
			b := newTeller(t, func(key string, _ http.Header) int {
				if _, ok := good.Load(key); !ok {
					return 401
				}
				return 200
			})
			value := func(name string, i int) string { return fmt.Sprintf("sk-%s-%d", name, i) }
			config := func(i int) string {
				var keys []string
				for _, name := range names {
					keys = append(keys, name+"="+value(name, i))
				}
				return b.configure("", keys...)
			}
			for _, name := range names {
				good.Store(value(name, 0), true)
			}
			r := newRig(t, config(0))
			var done atomic.Bool
			var answered atomic.Int64
			var asking sync.WaitGroup
			for range 8 {
				asking.Go(func() {
					for !done.Load() {
						got, err := r.try("POST", "http://chat", prompt)
						if err != nil || got.status != 200 {
							t.Errorf("%+v %v", got, err)
							return
						}
						answered.Add(1)
					}
				})
			}
			for i := 1; i <= 100; i++ {
				before := answered.Load()
				for _, name := range names {
					good.Store(value(name, i), true)
				}
				r.apply(config(i))
				for _, name := range names {
					good.Delete(value(name, i-1))
				}
				for end := time.Now().Add(time.Minute); answered.Load() < before+4 && time.Now().Before(end) && !t.Failed(); {
					<-time.After(time.Millisecond)
				}
			}
			done.Store(true)
			asking.Wait()
			refused := 0
			for key, n := range r.keyRequests() {
				if strings.HasSuffix(key, " 401") {
					refused += n
				}
			}
			t.Logf("%d calls, %d of them met the old key's end", answered.Load(), refused)
			if r.log.find("KeyRefused") != "" {
				t.Errorf("a key rests: %s", r.log.find("KeyRefused"))
			}
		})
	}
}

// A call that has waited for a connection is sent with the key as it is then.
func TestAKeyIsTheOneOfTheMomentOfSending(t *testing.T) {
	held := make(chan struct{})
	var once sync.Once
	b := newTeller(t, func(key string, _ http.Header) int {
		if key == "sk-old" {
			<-held
		}
		return 200
	})
	defer once.Do(func() { close(held) })
	const narrow = "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1, connectTimeout: 1m}}}\n"
	r := newRig(t, b.configure(narrow, "a=sk-old"))
	var asking sync.WaitGroup
	ask := func(status int, code routing.Code) {
		asking.Go(func() {
			got, err := r.try("POST", "http://chat", prompt)
			if err != nil || got.status != status {
				t.Errorf("%+v %v", got, err)
			} else if code != "" {
				got.wantError(t, status, code)
			}
		})
	}
	ask(200, "")
	await(t, func() bool { return b.sent()["sk-old"] == 1 })
	ask(200, "")
	r.await(waitingRequests, 1)
	r.apply(b.configure(narrow, "a=sk-new"))
	once.Do(func() { close(held) })
	asking.Wait()
	if sent := b.sent(); sent["sk-old"] != 1 || sent["sk-new"] != 1 {
		t.Errorf("sent: %v", sent)
	}

	// With the provider moved at the same time, the new value is not for the old place.
	held2 := make(chan struct{})
	b.judge(func(string, http.Header) int { <-held2; return 200 })
	ask(200, "")
	await(t, func() bool { return b.sent()["sk-new"] == 2 })
	ask(503, routing.KeyRevoked)
	r.await(waitingRequests, 1)
	r.apply(strings.Replace(b.configure(narrow, "a=sk-elsewhere"), "port: 8443", "port: 8444", 1))
	close(held2)
	asking.Wait()
	if sent := b.sent(); len(sent) != 2 || sent["sk-new"] != 2 {
		t.Errorf("sent: %v", sent)
	}
}

func TestAKeyThatWasTakenAwayIsNotSent(t *testing.T) {
	for name, c := range map[string]struct {
		before, after []string
		status        int
	}{
		"the only one":          {[]string{"a=sk-a"}, []string{"a="}, 503},
		"another without share": {[]string{"a*1=sk-a", "b*0=sk-b"}, []string{"a*1=", "b*1=sk-b"}, 503}, // which had no share when the call began
		"one of several":        {[]string{"a*1000000=sk-a", "b*1=sk-b"}, []string{"a*1000000=", "b*1=sk-b"}, 200},
		"and the provider":      {[]string{"a=sk-a"}, nil, 503},
		"one with a new name":   {[]string{"a=sk-a"}, []string{"b=sk-a"}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			held := make(chan struct{})
			b := newTeller(t, func(key string, _ http.Header) int {
				if key == "sk-a" {
					<-held
				}
				return 200
			})
			const narrow = "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1, connectTimeout: 1m}}}\n"
			r := newRig(t, b.configure(narrow, c.before...))
			var asking sync.WaitGroup
			asking.Go(func() {
				if got, err := r.try("POST", "http://chat", prompt); err != nil || got.status != 200 {
					t.Errorf("what was under way: %+v %v", got, err)
				}
			})
			await(t, func() bool { return b.sent()["sk-a"] == 1 })
			var got reply
			var err error
			asking.Go(func() { got, err = r.try("POST", "http://chat", prompt) })
			r.await(waitingRequests, 1)
			if c.after != nil {
				r.apply(b.configure(narrow, c.after...))
			} else {
				r.apply(providers)
			}
			close(held)
			asking.Wait()
			if err != nil || got.status != c.status {
				t.Errorf("%+v %v", got, err)
			}
			if c.status == 503 {
				got.wantError(t, 503, routing.KeyRevoked, "taken away")
				if got.header.Get("X-Should-Retry") == "false" {
					t.Error("SDKs do not ask again")
				}
			}
			if sent := b.sent(); sent["sk-a"] != 1 {
				t.Errorf("sent: %v", sent)
			}
			if r.log.find("a key was taken away") == "" {
				t.Error("the log does not say so")
			}
			if n := len(r.keyRequests()); c.status == 503 && n != 0 && name != "one with a new name" {
				t.Errorf("the metrics still have %v", r.keyRequests())
			}
			r.hides(t)
		})
	}
}

// await looks until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(time.Millisecond); !so(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it did not become so")
		}
	}
}
