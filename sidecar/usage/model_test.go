package usage

import (
	"strings"
	"testing"
)

func TestTheModelOfAnAnswerIsFoundHoweverItIsCutIntoPieces(t *testing.T) {
	whole := func(answer, want string) {
		t.Helper()
		for size := 1; size <= len(answer); size++ {
			var m Meter
			m.Begin(Whole)
			for rest := answer; rest != ""; {
				n := min(size, len(rest))
				m.Read([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got := string(m.Model()); got != want {
				t.Fatalf("in pieces of %d, %q is of %q, want %q", size, answer, got, want)
			}
		}
	}
	whole(`{"id":"x","model":"qwen-max","usage":{"prompt_tokens":1}}`, "qwen-max")
	whole(`{"choices":[{"message":{"model":"no","content":"model"}}],"model":"a\"b\\","model":"second"}`, `a\"b\\`)
	whole(`{"model":null,"object":{"model":"no"}}`, "")
	whole(`{"model":"`+strings.Repeat("m", 500)+`"}`, strings.Repeat("m", MaxModel))
	whole(`{"model":"never ends`, "")

	events := func(answer, want string, count int) {
		t.Helper()
		for size := 1; size <= len(answer); size++ {
			var m Meter
			m.Begin(AskedEvents)
			var out []byte
			for rest := answer; rest != ""; {
				n := min(size, len(rest))
				out = append(out, rest[:n]...)
				left, whole := m.Pass(out)
				out = append(out[:0], out[whole:left]...)
				m.Passed(whole)
				rest = rest[n:]
			}
			if got := string(m.Model()); got != want || m.Count() != count {
				t.Fatalf("in pieces of %d, %q has %d events of %q, want %d of %q", size, answer, m.Count(), got, count, want)
			}
		}
	}
	one := `data: {"id":"x","model":"qwen-max","choices":[{"delta":{"content":"a"}}]}` + "\n\n"
	events(one+": a comment\n\n"+one+`data: {"model":"qwen-max","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`+"\n\ndata: [DONE]\n\n", "qwen-max", 2)
	events(`data: {"model":"","prompt_filter_results":[]}`+"\n\n"+one, "qwen-max", 2)
	events(`event: response.created`+"\n"+`data: {"type":"response.created","response":{"model":"gpt-5","usage":null}}`+"\n\n", "gpt-5", 1)
}
