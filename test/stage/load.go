package stage

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"remora.dev/remora/test/llmserver"
)

// Caller says how calls are made. All are chat completions of one short message, unless Change says otherwise.
type Caller struct {
	// Dial connects to where the calls go, whatever their host: http://HOST/v1/chat/completions.
	Dial func(ctx context.Context) (net.Conn, error)
	Host string
	// TLS is that of https calls; nil: they are http.
	TLS *tls.Config
	// Change may change call number n, from 0. Default: all are the same.
	Change func(n int, r *http.Request)
	// Apart has each call come on a connection of its own. Default: they are kept, one for each of the clients.
	Apart bool
}

// Answer is what came of a call.
type Answer struct {
	Pod    string // that has answered
	Status int
	Header http.Header
	Body   string
	Err    error // there was no answer, or only a part of one
}

// OK tells whether it is a whole answer, of status 200.
func (a Answer) OK() bool { return a.Err == nil && a.Status == http.StatusOK }

// String shows what went wrong.
func (a Answer) String() string {
	if a.Err != nil {
		return fmt.Sprintf("%v (status %d, of %q: %s)", a.Err, a.Status, a.Pod, a.Body)
	}
	return fmt.Sprintf("status %d of %q: %s", a.Status, a.Pod, a.Body)
}

// Message is the body of calls.
const Message = `{"model":"any","messages":[{"role":"user","content":"hi"}]}`

// clients gives an HTTP client for one caller among several.
func (c Caller) client() *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) }
	return &http.Client{
		Transport: &http.Transport{DialContext: dial, TLSClientConfig: c.TLS, DisableKeepAlives: c.Apart, DisableCompression: true, MaxIdleConnsPerHost: 1},
		// A redirect is an answer, too.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Request is call number n, as it is before it is sent.
func (c Caller) Request(ctx context.Context, n int) (*http.Request, error) {
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+c.Host+"/v1/chat/completions", strings.NewReader(Message))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if c.Change != nil {
		c.Change(n, r)
	}
	return r, nil
}

// Call makes call number n by a client of its own.
func (c Caller) Call(ctx context.Context, n int) Answer {
	client := c.client()
	defer client.CloseIdleConnections()
	return c.call(ctx, client, n)
}

func (c Caller) call(ctx context.Context, client *http.Client, n int) Answer {
	r, err := c.Request(ctx, n)
	if err != nil {
		return Answer{Err: err}
	}
	response, err := client.Do(r)
	if err != nil {
		return Answer{Err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return Answer{Pod: response.Header.Get(llmserver.NameHeader), Status: response.StatusCode, Header: response.Header, Body: string(body), Err: err}
}

// Calls makes n calls, so many clients at the same time, and gives their answers by number.
func (c Caller) Calls(ctx context.Context, n, clients int) []Answer {
	answers := make([]Answer, n)
	numbers := make(chan int)
	var all sync.WaitGroup
	for range clients {
		client := c.client()
		all.Go(func() {
			defer client.CloseIdleConnections()
			for i := range numbers {
				answers[i] = c.call(ctx, client, i)
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	all.Wait()
	return answers
}

// Shares counts the answers by pod. Those that are no whole answer of status 200 count as failed.
func Shares(answers []Answer) (shares map[string]int, failed []Answer) {
	shares = map[string]int{}
	for _, a := range answers {
		if !a.OK() {
			failed = append(failed, a)
			continue
		}
		shares[a.Pod]++
	}
	return shares, failed
}

// Load is calls that are made without end.
type Load struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed at the next answer, and made anew
	calls   int
	failed  []Answer
	shares  map[string]int // since Mark
}

// longest is how long a call of a load may take.
const longest = 2 * time.Minute

// Begin has clients call without pause, but for the time given between two calls of each, until Stop or the end of the context.
func (c Caller) Begin(ctx context.Context, clients int, pause time.Duration) *Load {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{cancel: cancel, changed: make(chan struct{}), shares: map[string]int{}}
	for i := range clients {
		client := c.client()
		l.all.Go(func() {
			defer client.CloseIdleConnections()
			for n := i; ctx.Err() == nil; n += clients {
				// What has begun is completed.
				patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), longest)
				l.add(c.call(patient, client, n))
				cancel()
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	return l
}

func (l *Load) add(a Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls++; a.OK() {
		l.shares[a.Pod]++
	} else {
		l.failed = append(l.failed, a)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Mark forgets the shares so far; calls and failures go on being counted.
func (l *Load) Mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shares = map[string]int{}
}

// Forgive forgets the failures so far, of which the caller knows the reason.
func (l *Load) Forgive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = nil
}

// Tally is how a load stands.
type Tally struct {
	Calls  int
	Failed []Answer
	Shares map[string]int // by pod, since Mark
}

// Answered is the sum of the shares.
func (t Tally) Answered() (sum int) {
	for _, n := range t.Shares {
		sum += n
	}
	return sum
}

// String is the tally in a line.
func (t Tally) String() string {
	var words []string
	for _, pod := range slices.Sorted(maps.Keys(t.Shares)) {
		words = append(words, fmt.Sprintf("%s %d", pod, t.Shares[pod]))
	}
	text := fmt.Sprintf("%d calls, %d failed; since the last mark: %s", t.Calls, len(t.Failed), strings.Join(words, ", "))
	if len(t.Failed) > 0 {
		text += "; the first failure: " + t.Failed[0].String()
	}
	return text
}

// Tally gives how it stands now.
func (l *Load) Tally() Tally {
	t, _ := l.tally()
	return t
}

func (l *Load) tally() (Tally, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Tally{Calls: l.calls, Failed: slices.Clone(l.failed), Shares: maps.Clone(l.shares)}, l.changed
}

// Until returns when the tally is as wanted, or with the error of the context.
func (l *Load) Until(ctx context.Context, wanted func(Tally) bool) error {
	for {
		t, changed := l.tally()
		if wanted(t) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %v", ctx.Err(), t)
		}
	}
}

// Stop ends it, when each of its calls is answered.
func (l *Load) Stop() Tally {
	l.cancel()
	l.all.Wait()
	return l.Tally()
}
