package sdk_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// experience is one scenario in one way: what the SDK saw, what came over the wire to it, and what the provider got.
type experience struct {
	Saw     map[string]any
	Wire    []exchange
	EndedAt int64 // Unix milliseconds: when the SDK was through, or left
	arrived []arrival
}

// onTheWire is all that came, for people to read.
func (e experience) onTheWire(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, x := range e.Wire {
		fmt.Fprintf(&b, "%d %s\n%s\n", x.Status, text(t, x.Header), x.Body)
	}
	return b.String()
}

// failed tells whether the SDK raised an error, or gave one to the app as the last event.
func (e experience) failed() bool {
	if e.Saw["error"] != nil {
		return true
	}
	chunks, _ := e.Saw["chunks"].([]any)
	if len(chunks) == 0 {
		return false
	}
	last, _ := chunks[len(chunks)-1].(map[string]any)
	return last["type"] == "error" || last["type"] == "abort"
}

// checkDeparture demands that the provider noticed it. All times are from one machine. Five seconds are long for what
// takes a millisecond, so that a busy machine does not fail the test; without notice of the departure, the provider
// would go on for ten at least.
func (e experience) checkDeparture(t *testing.T, w way) {
	t.Helper()
	last := e.arrived[len(e.arrived)-1]
	if late := last.ended.Sub(time.UnixMilli(e.EndedAt)); !last.aborted || late > 5*time.Second {
		t.Errorf("%s: the provider noticed %s after the SDK had left (aborted: %v)", w.name, late, last.aborted)
	}
}

// same demands that another way looks like the direct one.
func (e experience) same(t *testing.T, other experience, s scenario, w way) {
	t.Helper()
	for _, field := range []string{"chunks", "data", "parsed", "error"} {
		a, b := steady(s, text(t, e.Saw[field])), steady(s, text(t, other.Saw[field]))
		if s.differs != nil {
			if field != "chunks" {
				continue // what is put together of them is known from scenarios that end well
			}
			a, b = common(strings.TrimSuffix(a, "]"), strings.TrimSuffix(b, "]"))
		}
		equal(t, w, "the SDK sees another "+field, a, b)
	}
	e.sameWire(t, other, s, w)
	for i := range min(len(e.arrived), len(other.arrived)) {
		if i > 0 && s.through != 0 {
			break // a retry of the sidecar's is compared with one of the SDK's, which counts its own in a header
		}
		e.arrived[i].same(t, other.arrived[i], w)
	}
}

// sameWire compares the bytes. Where one of two answers was broken off, what came of it has to be the beginning of the
// other. Where they differ on purpose, this is true of the whole events of a stream: through the sidecar, another event
// follows, which tells why there are no more.
func (e experience) sameWire(t *testing.T, other experience, s scenario, w way) {
	t.Helper()
	if s.through == 0 && s.differs == nil && len(e.Wire) != len(other.Wire) {
		t.Errorf("%d answers %s, %d directly", len(other.Wire), w.name, len(e.Wire))
	}
	for i := range min(len(e.Wire), len(other.Wire)) {
		a, b := e.Wire[i], other.Wire[i]
		if s.differs == nil {
			equal(t, w, "another status", fmt.Sprint(a.Status), fmt.Sprint(b.Status))
			equal(t, w, "other headers", text(t, steadyHeader(a.Header)), text(t, steadyHeader(b.Header)))
			if !s.leaves && (a.Broken == "") != (b.Broken == "") {
				t.Errorf("%s: broken off by %q, directly by %q", w.name, b.Broken, a.Broken)
			}
		}
		if s.differs != nil && (a.Broken == "" || a.Status != b.Status) {
			continue
		}
		body, through := steady(s, string(a.Body)), steady(s, string(b.Body))
		if s.differs != nil {
			body = body[:strings.LastIndex(body, "\n\n")+2]
			through = through[:min(len(body), len(through))]
		} else if a.Broken != "" || b.Broken != "" || s.leaves {
			body, through = common(body, through)
		}
		equal(t, w, "other bytes", body, through)
	}
}

// common are the beginnings of two texts, as far as there are both.
func common(a, b string) (string, string) {
	length := min(len(a), len(b))
	return a[:length], b[:length]
}

// madeUp are the ids that aimock makes at random.
var madeUp = regexp.MustCompile(`\b(chatcmpl|resp|msg|fc|call|rs|req)[-_][A-Za-z0-9_-]{16}`)

// steady leaves out what may differ. Our own provider makes ids and times from the request, so they are compared like
// all else.
func steady(s scenario, body string) string {
	if s.host != mocked {
		return body
	}
	return madeUp.ReplaceAllString(body, "$1-ID")
}

// steadyHeader leaves out Date, which is the time, aimock's random id, and the headers of one connection only.
func steadyHeader(header map[string]string) map[string]string {
	kept := maps.Clone(header)
	for _, name := range []string{"date", "x-request-id", "connection", "keep-alive", "transfer-encoding"} {
		delete(kept, name)
	}
	return kept
}

// arrival is a request at a provider, without our mark, the headers of one connection, and Accept-Encoding: the sidecar
// asks for uncompressed answers, to be able to follow them.
type arrival struct {
	line    string // method, host, path and query
	header  map[string][]string
	body    string
	ended   time.Time // where the provider tells
	aborted bool
}

// asking is what the sidecar adds to a request for a stream, to learn its usage.
const asking = `"stream_options":{"include_usage":true}`

func (a arrival) same(t *testing.T, through arrival, w way) {
	t.Helper()
	direct, other := maps.Clone(a.header), maps.Clone(through.header)
	body := through.body
	if strings.Contains(body, asking) && !strings.Contains(a.body, "stream_options") {
		body = strings.NewReplacer(","+asking, "", asking+",", "").Replace(body)
		delete(direct, "Content-Length")
		delete(other, "Content-Length")
	}
	equal(t, w, "the provider sees another request", a.line, through.line)
	equal(t, w, "the provider sees another body", a.body, body)
	if !reflect.DeepEqual(direct, other) {
		for _, name := range slices.Sorted(maps.Keys(direct)) {
			equal(t, w, "the provider sees another "+name, fmt.Sprint(direct[name]), fmt.Sprint(other[name]))
			delete(other, name)
		}
		equal(t, w, "the provider sees more headers", "{}", text(t, other))
	}
}

// equal tells where two texts part.
func equal(t *testing.T, w way, what, direct, through string) {
	t.Helper()
	if direct == through {
		return
	}
	at := 0
	for at < min(len(direct), len(through)) && direct[at] == through[at] {
		at++
	}
	around := func(s string) string { return s[max(0, min(at, len(s))-100):min(len(s), at+200)] }
	t.Errorf("%s, %s, from byte %d on:\n  directly   %q\n  %-10s %q", w.name, what, at, around(direct), w.name, around(through))
}

// text is JSON for people to read.
func text(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(fmt.Errorf("encode what was seen: %w", err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}
