package llmserver_test

import (
	"io"
	"testing"

	"remora.dev/remora/test/llmserver"
)

func TestTheTallyIsWhatWasReportedAndWhatWasNot(t *testing.T) {
	f := func(path, body, fault string, want llmserver.Tally) {
		t.Helper()
		s := start(t)
		a, err := post(t, s, path, body, llmserver.FaultHeader+": chunks=4 "+fault)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, a.Body)
		a.Body.Close()
		if _, err := s.AwaitEnded(limited(t), 1); err != nil {
			t.Fatal(err)
		}
		if got := s.Tally(""); got != want || s.Tally(qwen) != want || s.Tally(moonshot) != (llmserver.Tally{}) {
			t.Errorf("%s with the fault %q: %+v, want %+v", path, fault, got, want)
		}
		if s.Reset(); s.Tally("") != (llmserver.Tally{}) {
			t.Error("Reset keeps the tally")
		}
	}
	const chat, responses = "/v1/chat/completions", "/v1/responses"
	cost := func(output, reasoning int) llmserver.Tokens {
		return llmserver.Tokens{Answers: 1, Input: 4, Output: output, Cached: 2, Reasoning: reasoning}
	}
	asked := streaming(askedForUsage)
	f(chat, hello, "reasoning=3", llmserver.Tally{Reported: cost(7, 3)})
	f(chat, hello, "usage=none", llmserver.Tally{Silent: cost(4, 0)})
	f(chat, hello, "cut-after=2", llmserver.Tally{Cut: cost(4, 0)})
	f(chat, hello, "status=500", llmserver.Tally{})
	f(chat, hello, "body={}", llmserver.Tally{})
	f(chat, `{}`, "split", llmserver.Tally{})
	f(chat, streaming(""), "split", llmserver.Tally{Silent: cost(4, 0)})
	f(chat, streaming(""), "usage=last", llmserver.Tally{Reported: cost(4, 0)})
	f(chat, asked, "split", llmserver.Tally{Reported: cost(4, 0)})
	// The events are the role, four words, the end, the usage, [DONE].
	f(chat, asked, "cut-after=0", llmserver.Tally{Cut: cost(0, 0)})
	f(chat, asked, "cut-after=3 reasoning=3", llmserver.Tally{Cut: cost(5, 3)})
	f(chat, asked, "cut-after=6", llmserver.Tally{Cut: cost(4, 0)})
	f(chat, asked, "cut-after=6 mid-event", llmserver.Tally{Cut: cost(4, 0)})
	f(chat, asked, "cut-after=7", llmserver.Tally{Reported: cost(4, 0)})
	f(chat, streaming(""), "cut-after=1000", llmserver.Tally{Silent: cost(4, 0)})
	f(chat, asked, "usage=running cut-after=0", llmserver.Tally{Cut: cost(0, 0)})
	f(chat, asked, "usage=running cut-after=3 mid-event", llmserver.Tally{Reported: cost(2, 0)})
	f(chat, asked, "usage=running cut-after=6", llmserver.Tally{Reported: cost(4, 0)})
	f(chat, asked, "error-after=3", llmserver.Tally{Silent: cost(2, 0)})
	f(chat, asked, "error-after=7", llmserver.Tally{Reported: cost(4, 0)})
	f(chat, asked, "error-after=3 usage=running", llmserver.Tally{Reported: cost(2, 0)})
	f(chat, asked, "error-after=0 usage=running", llmserver.Tally{Silent: cost(0, 0)})
	f(chat, hello, "error-after=3", llmserver.Tally{Reported: cost(4, 0)})
	// created, in_progress, the item, the part, four words, the ends of text, part, item and answer
	response := llmserver.Tokens{Answers: 1, Input: 2, Output: 4}
	sixth := response
	sixth.Output = 2
	f(responses, `{"model":"m","input":"hi you","stream":true}`, "split", llmserver.Tally{Reported: response})
	f(responses, `{"model":"m","input":"hi you","stream":true}`, "cut-after=6", llmserver.Tally{Cut: sixth})
	f(responses, `{"model":"m","input":"hi you","stream":true}`, "cut-after=11", llmserver.Tally{Cut: response})
	f(responses, `{"model":"m","input":"hi you"}`, "split", llmserver.Tally{Reported: response})
	f("/v1/embeddings", `{"model":"m","input":"hi you"}`, "split", llmserver.Tally{Reported: llmserver.Tokens{Answers: 1, Input: 2}})
}

func TestAClientThatLeavesIsTalliedForWhatItGot(t *testing.T) {
	s := start(t)
	a, err := post(t, s, "/v1/chat/completions", streaming(askedForUsage), llmserver.FaultHeader+": chunks=4 stall-after=3")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if _, err := s.AwaitAborted(limited(t)); err != nil {
		t.Fatal(err)
	}
	if got := s.Tally(qwen).Cut; got.Answers != 1 || got.Output > 2 {
		t.Errorf("%+v", got)
	}
}
