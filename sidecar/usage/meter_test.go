package usage_test

import (
	"strings"
	"testing"

	"remora.dev/remora/sidecar/usage"
)

// relay brings an answer through a meter in pieces of n bytes, as the proxy does.
func relay(m *usage.Meter, f usage.Form, text string, n int) string {
	m.Begin(f)
	var out, held []byte
	for len(text) > 0 {
		n := min(n, len(text))
		held = append(held, text[:n]...)
		text = text[n:]
		kept, whole := m.Pass(held)
		out = append(out, held[:whole]...)
		held = append(held[:0], held[whole:kept]...)
		m.Passed(whole)
	}
	held = held[:m.Finish(held)]
	return string(append(out, held...))
}

func TestUsageIsFoundWhereverAProviderPutsIt(t *testing.T) {
	f := func(stream string, want usage.Report) {
		t.Helper()
		for n := 1; n <= len(stream); n++ {
			var m usage.Meter
			got := relay(&m, usage.Events, stream, n)
			if got != stream {
				t.Fatalf("in pieces of %d: %q becomes %q", n, stream, got)
			}
			if r, ok := m.Report(); r != want || ok != (want != usage.Report{}) {
				t.Fatalf("in pieces of %d: %q: %+v %v, want %+v", n, stream, r, ok, want)
			}
		}
	}
	const numbers = `{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":6}}`
	want := usage.Report{Input: 12, Output: 34, Cached: 5, Reasoned: 6}
	const content = `data: {"id":"1","choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null}` + "\n\n"
	f(content+`data: {"choices":[],"usage":`+numbers+"}\n\ndata: [DONE]\n\n", want)
	f(content+`data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":`+numbers+"}\n\n", want)
	f(`data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`+"\n\n"+`data: {"choices":[],"usage":`+numbers+"}\n\n", want)
	f("\xEF\xBB\xBFdata:{\"choices\":[],\"usage\":"+numbers+"}\r\n\r\n", want)
	f(": ping\r\rdata: {\"choices\":[],\r: note\rdata:\"usage\":"+numbers+"}\r\r", want)
	f("event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"usage\":{\"input_tokens\":9}}],"+
		`"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":5},"output_tokens":34,"output_tokens_details":{"reasoning_tokens":6}}}}`+"\n\n", want)
	f(`data: {"choices":[{"delta":{},"usage":`+numbers+`}]}`+"\n\n", want) // Moonshot
	f(`data: { "choices" : [ ] , "usage" : { "prompt_tokens" : 12 , "completion_tokens" : 34.0 } }`+"\n\n", usage.Report{Input: 12, Output: 34})
	f(content+`data: {"choices":[],"usage":`+numbers+"}", want) // the answer ends without the event's end

	// no report
	f(content, usage.Report{})
	f(`data: {"choices":[{"delta":{"content":"{\"usage\":{\"prompt_tokens\":1}}"}}]}`+"\n\n", usage.Report{})
	f(`data: {"choices":[{"delta":{"content":"\\"}}],"metadata":{"usage":{"prompt_tokens":1}}}`+"\n\n", usage.Report{})
	f(`data: {"usage":{"seconds":1}}`+"\n\n", usage.Report{})
	f(`data: {"usage":{"prompt_tokens":-5,"completion_tokens":1e9}}`+"\n\n", usage.Report{})
	f(`data: {"usage":{"prompt_tokens":123456789012345678901234567890}}`+"\n\n", usage.Report{})
	f(`datas: {"usage":{"prompt_tokens":1}}`+"\n\n"+`: {"usage":{"prompt_tokens":1}}`+"\n\n", usage.Report{})
}

func TestUsageOfWholeAnswersIsFound(t *testing.T) {
	f := func(answer string, want usage.Report) {
		t.Helper()
		for n := 1; n <= len(answer); n++ {
			var m usage.Meter
			m.Begin(usage.Whole)
			for rest := answer; rest != ""; rest = rest[min(n, len(rest)):] {
				m.Read([]byte(rest[:min(n, len(rest))]))
			}
			if r, ok := m.Report(); r != want || ok != (want != usage.Report{}) {
				t.Fatalf("in pieces of %d: %q: %+v %v, want %+v", n, answer, r, ok, want)
			}
		}
	}
	f(`{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`, usage.Report{Input: 1, Output: 2})
	f(`{"data":[{"embedding":[0.1,-2e5]}],"usage":{"prompt_tokens":7,"total_tokens":7}}`, usage.Report{Input: 7})
	f(`{"results":[],"usage":{"total_tokens":7}}`, usage.Report{Input: 7})
	f(`{"object":"response","metadata":{"usage":{"input_tokens":9}},"usage":{"input_tokens":7,"output_tokens":8,"input_tokens_details":{"cached_tokens":100}}}`, usage.Report{Input: 7, Output: 8, Cached: 7})
	f(`{"text":"hm","usage":{"type":"duration","seconds":3}}`, usage.Report{})
	f(`{"usage":null}`, usage.Report{})
	f(`[{"usage":{"prompt_tokens":1}}]`, usage.Report{})
	f(`{"a\"usage":{"prompt_tokens":1}}`, usage.Report{})
	f(`"usage"`, usage.Report{})
}

func TestWhatWasNotAskedForIsRemoved(t *testing.T) {
	f := func(answer, want string) {
		t.Helper()
		for n := 1; n <= len(answer); n++ {
			var m usage.Meter
			if got := relay(&m, usage.AskedEvents, answer, n); got != want {
				t.Fatalf("in pieces of %d:\n%q becomes\n%q, want\n%q", n, answer, got, want)
			}
		}
	}
	const used = `{"prompt_tokens":1,"completion_tokens":2}`
	for _, end := range []string{"\n", "\r\n", "\r"} {
		l := func(text string) string { return strings.ReplaceAll(text, "\n", end) }
		f(l("data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":"+used+"}\n\ndata: [DONE]\n\n"), l("data: {\"choices\":[{}]}\n\ndata: [DONE]\n\n"))
		f(l("data: {\"choices\":[{}],\"usage\":"+used+",\"x\":1}\n\n: ping\n\n"), l("data: {\"choices\":[{}],\"x\":1}\n\n: ping\n\n"))
		f(l("data: {\"a\":1,\ndata: \"usage\":null}\n\n"), l("data: {\"a\":1}\n\n"))
		f(l("data: {\"usage\":"+used+"}\n\n"), "")
		f(l("data: {\"choices\":[],\"usage\":"+used+"}\n"), "")
		f(l("data: {\"choices\":[{}],\"usage\":null}"), "data: {\"choices\":[{}]}")
	}
	f(`data: {"a": 1, "usage": null, "b": 2}`+"\n\n", `data: {"a": 1, "b": 2}`+"\n\n")
	f(`data: {"usage" : null , "b": 2}`+"\n\n", `data: {"b": 2}`+"\n\n")
	f(`data: {"usage":null}`+"\n\n", `data: {}`+"\n\n")
	f(`data: {"choices":[],"prompt_filter_results":[{"x":{}}],"usage":null}`+"\n\n", `data: {"choices":[],"prompt_filter_results":[{"x":{}}]}`+"\n\n")
	f(`data: {"choices":[],"prompt_filter_results":[{"x":{}}],"usage":`+used+`}`+"\n\n", `data: {"choices":[],"prompt_filter_results":[{"x":{}}]}`+"\n\n")
	f(`data: {"choices":null,"usage":`+used+`}`+"\n\n", "")

	// what is not the top level's usage, or not what was asked for, stays
	for _, same := range []string{
		`data: {"choices":[{"delta":{"content":",\"usage\":null"}}]}` + "\n\n",
		`data: {"choices":[{"usage":null}],"x":{"usage":null}}` + "\n\n",
		`data: {"usage":3}` + "\n\n", `data: {"usage":"null"}` + "\n\n", `data: {"usage":nul}` + "\n\n", `data: {"usage":[null]}` + "\n\n",
		`data: {"choices":[],"usage":` + "\n\n", `: {"usage":null}` + "\n\n", `data: ["usage",null]` + "\n\n", "data\n\n", "\n\n\n",
	} {
		f(same, same)
	}
}

func TestEventsThatBeginAlikeAreReadToTheirEnd(t *testing.T) {
	event := func(text, rest string) string {
		return `data: {"usage":null,"id":"1","choices":[{"index":0,"delta":{"content":"` + text + `"` + rest + "\n\n"
	}
	stream := event("a", `}}]}`) + event(`\"b`, `}}]}`) + ": ping\n\n" + event("", `},"usage":{"prompt_tokens":3,"completion_tokens":4}}]}`) + event("c", `}}],"x":1}`)
	want := strings.ReplaceAll(stream, `"usage":null,`, "")
	for n := 1; n <= len(stream); n++ {
		var m usage.Meter
		if got := relay(&m, usage.AskedEvents, stream, n); got != want {
			t.Fatalf("in pieces of %d: %q, want %q", n, got, want)
		}
		if r, _ := m.Report(); r != (usage.Report{Input: 3, Output: 4}) || m.Text() != 1 {
			t.Fatalf("in pieces of %d: %+v and %d tokens of text", n, r, m.Text())
		}
	}
}
