package usage_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/usage"
)

// state is what a meter has found out.
type state struct {
	report     usage.Report
	reported   bool
	text       int64
	data, said bool
	sequence   int64
}

func stateOf(m *usage.Meter) (s state) {
	s.report, s.reported = m.Report()
	s.text, s.data, s.said, s.sequence = m.Text(), m.Data(), m.Said(), m.Sequence()
	return s
}

// FuzzPieces splits an answer anywhere: the result must be that of the whole, and where nothing is to be removed, the bytes too.
func FuzzPieces(f *testing.F) {
	for _, text := range []string{
		"data: {\"choices\":[{\"delta\":{\"content\":\"\\u4f60\\\\\"}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n",
		"\xEF\xBB\xBFdata:{\"usage\":{\"total_tokens\":7},\r\ndata:\"x\":1}\r\n\r\n: ping\r\r", strings.Repeat("data: {\"usage\":null,\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", 3) + "data: {\"usage\":null,\"choices\":[{\"delta\":{\"content\":\"\",\"x\":1}]}\n\n",
		"event: x\rdata: {\"a\":[{}],\n\n\r\n\r", "data\ndata:\n\n\ndata: {\"usage\":nul}\n\n",
	} {
		f.Add([]byte(text), uint16(7), uint16(20))
	}
	f.Fuzz(func(t *testing.T, text []byte, first, second uint16) {
		for _, form := range []usage.Form{usage.Events, usage.AskedEvents} {
			var whole, split usage.Meter
			want := relayIn(&whole, form, text)
			got := relayIn(&split, form, text, int(first), int(second))
			if want != got || stateOf(&whole) != stateOf(&split) {
				t.Fatalf("%q split at %d and %d: %q %+v, and as a whole %q %+v", text, first, second, got, stateOf(&split), want, stateOf(&whole))
			}
			if form == usage.Events && got != string(text) {
				t.Fatalf("%q becomes %q", text, got)
			}
			var slow usage.Meter
			if got := relay(&slow, form, string(text), 1); got != want || stateOf(&slow) != stateOf(&whole) {
				t.Fatalf("%q byte by byte: %q %+v, and as a whole %q %+v", text, got, stateOf(&slow), want, stateOf(&whole))
			}
		}
		var whole, split usage.Meter
		whole.Begin(usage.Whole)
		whole.Read(text)
		split.Begin(usage.Whole)
		at := min(int(first), len(text))
		split.Read(text[:at])
		split.Read(text[at:])
		if stateOf(&whole) != stateOf(&split) {
			t.Fatalf("%q split at %d: %+v, and as a whole %+v", text, at, stateOf(&split), stateOf(&whole))
		}
	})
}

// relayIn is relay with pieces that end at some offsets.
func relayIn(m *usage.Meter, f usage.Form, text []byte, ends ...int) string {
	m.Begin(f)
	var out, held []byte
	at := 0
	for _, end := range append(ends, len(text)) {
		end = max(min(end, len(text)), at)
		held = append(held, text[at:end]...)
		at = end
		kept, whole := m.Pass(held)
		out = append(out, held[:whole]...)
		held = append(held[:0], held[whole:kept]...)
		m.Passed(whole)
	}
	held = held[:m.Finish(held)]
	return string(append(out, held...))
}

// FuzzTorn passes an event on before it is complete, as it happens to long ones: what comes out must be the same.
func FuzzTorn(f *testing.F) {
	f.Add([]byte(`{"choices":[{"delta":{"content":"x"}}],"usage":null,"a":1}`), uint16(50), uint16(60))
	f.Add([]byte(`{"usage":{"prompt_tokens":1}, "choices":[{}]}`), uint16(10), uint16(34))
	f.Fuzz(func(t *testing.T, chunk []byte, first, second uint16) {
		if !json.Valid(chunk) || bytes.ContainsAny(chunk, "\r\n") {
			return
		}
		text := []byte("data: " + string(chunk) + "\n\n")
		var whole, torn usage.Meter
		want := relayIn(&whole, usage.AskedEvents, text)
		if want == "" {
			return // what goes as a whole cannot be called back
		}
		torn.Begin(usage.AskedEvents)
		var out, held []byte
		at := 0
		for _, end := range []int{int(first), int(second), len(text)} {
			end = max(min(end, len(text)), at)
			held = append(held, text[at:end]...)
			at = end
			kept, _ := torn.Pass(held)
			kept, n := torn.Tear(held[:kept])
			if n < 0 || n > kept {
				t.Fatalf("%d of %d", n, kept)
			}
			out = append(out, held[:n]...)
			held = append(held[:0], held[n:kept]...)
			torn.Passed(n)
		}
		held = held[:torn.Finish(held)]
		if got := string(append(out, held...)); got != want {
			t.Fatalf("%q torn at %d and %d: %q, want %q", text, first, second, got, want)
		}
	})
}

// FuzzRemoval lets a provider add what asking for usage adds, and expects the original.
func FuzzRemoval(f *testing.F) {
	f.Add([]byte(`{"id":"1","choices":[{"index":0,"delta":{"content":",\"usage\":null}"}}]}`), uint8(0), "\n")
	f.Add([]byte(`{"choices":[{"x":[1,2]}], "b": "\\"}`), uint8(1), "\r\n")
	f.Add([]byte(`{"choices":[],"prompt_filter_results":[]}`), uint8(2), "\r")
	f.Fuzz(func(t *testing.T, chunk []byte, place uint8, end string) {
		var members map[string]json.RawMessage
		if end != "\n" && end != "\r\n" && end != "\r" || bytes.ContainsAny(chunk, "\r\n") || json.Unmarshal(chunk, &members) != nil || len(members) == 0 ||
			chunk[0] != '{' || chunk[len(chunk)-1] != '}' {
			return
		}
		for key := range members {
			if strings.EqualFold(key, "usage") {
				return
			}
		}
		original := "data: " + string(chunk) + end + end
		last := "data: [DONE]" + end + end
		var added string
		switch place % 4 {
		case 0:
			added = strings.TrimRight(string(chunk[:len(chunk)-1]), " \t") + `,"usage":null}`
			original = "data: " + strings.TrimRight(string(chunk[:len(chunk)-1]), " \t") + "}" + end + end
		case 1:
			added = `{"usage":null,` + strings.TrimLeft(string(chunk[1:]), " \t")
			original = "data: {" + strings.TrimLeft(string(chunk[1:]), " \t") + end + end
		case 2:
			added = `{"usage": null, ` + strings.TrimLeft(string(chunk[1:]), " \t")
			original = "data: {" + strings.TrimLeft(string(chunk[1:]), " \t") + end + end
		default:
			added = string(chunk)
		}
		provider := "data: " + added + end + end + `data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}` + end + end + last
		for _, n := range []int{1, 3, 8 << 10} {
			var m usage.Meter
			if got := relay(&m, usage.AskedEvents, provider, n); got != original+last {
				t.Fatalf("%q becomes %q, want %q", provider, got, original+last)
			}
			if r, ok := m.Report(); !ok || r != (usage.Report{Input: 3, Output: 4}) {
				t.Fatalf("%q: %+v %v", provider, r, ok)
			}
		}
	})
}

// FuzzReport asks encoding/json what a report says.
func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"prompt_tokens":12,"completion_tokens":34,"prompt_tokens_details":{"cached_tokens":5},"x":[{"prompt_tokens":7}]}`))
	f.Add([]byte(`{"input_tokens": 12 ,"output_tokens":34,"output_tokens_details":{"reasoning_tokens":5,"y":{}},"z":"\"input_tokens\":3"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) || len(text) == 0 || text[0] != '{' || bytes.Contains(text, []byte(`\u`)) || doubled(text) {
			return
		}
		var want struct {
			P *int64 `json:"prompt_tokens"`
			C *int64 `json:"completion_tokens"`
			I *int64 `json:"input_tokens"`
			O *int64 `json:"output_tokens"`
		}
		if json.Unmarshal(text, &want) != nil || want.P == nil || want.C == nil || want.I != nil || want.O != nil ||
			*want.P < 1 || *want.C < 1 || *want.P > 1<<30 || *want.C > 1<<30 {
			return
		}
		var m usage.Meter
		m.Begin(usage.Whole)
		m.Read([]byte(`{"usage":` + string(text) + `}`))
		if r, ok := m.Report(); !ok || r.Input != *want.P || r.Output != *want.C || r.Cached > r.Input || r.Reasoned > r.Output {
			t.Fatalf("%s: %+v %v", text, r, ok)
		}
	})
}

// doubled tells whether some key comes twice, or in capitals, which encoding/json takes for the same.
func doubled(text []byte) bool {
	lower := bytes.ToLower(text)
	for _, key := range []string{"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"} {
		if bytes.Count(lower, []byte(`"`+key+`"`)) > 1 || bytes.Count(lower, []byte(key)) != bytes.Count(text, []byte(key)) {
			return true
		}
	}
	return bytes.ContainsFunc(text, func(r rune) bool { return r > 126 }) // letters that fold into ASCII
}

// FuzzRequest estimates anything.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"messages":[{"role":"user","content":"hello"}]}`), uint16(100))
	f.Add([]byte("\"\\\\\"{:,"), uint16(3000))
	f.Fuzz(func(t *testing.T, text []byte, times uint16) {
		if len(text) > 1000 {
			return
		}
		body := bytes.Repeat(text, int(times)%2000)
		if n := usage.Request(body); n < 0 || n > int64(8*len(body)+8) {
			t.Fatalf("%d tokens of %d bytes", n, len(body))
		}
	})
}

// A reader of lines agrees about where events end.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: a\n\n: x\n\ndata: b\r\n\r\nc\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.ContainsRune(text, '\r') || bytes.HasPrefix(text, []byte("\xEF")) {
			return
		}
		want, at := 0, 0
		for in := bufio.NewScanner(bytes.NewReader(text)); in.Scan(); {
			if at += len(in.Bytes()) + 1; len(in.Bytes()) == 0 && at <= len(text) {
				want = at
			}
		}
		var m usage.Meter
		m.Begin(usage.Events)
		if n, whole := m.Pass(bytes.Clone(text)); n != len(text) || whole != want {
			t.Fatalf("%q: %d of %d, want %d", text, whole, n, want)
		}
	})
}
