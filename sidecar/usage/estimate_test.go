package usage_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/usage"
)

// estimate is what the deltas of a stream are taken for.
func estimate(events string) int64 {
	var m usage.Meter
	relay(&m, usage.Events, events, len(events)+1)
	return m.Text()
}

func delta(text string) string {
	return `data: {"choices":[{"delta":{"content":` + text + `}}]}` + "\n\n"
}

func TestAllThatAModelWritesIsEstimated(t *testing.T) {
	const word = `"a word or two of text"`
	want := estimate(delta(word))
	if want < 4 || want > 9 {
		t.Errorf("%s is %d tokens", word, want)
	}
	for _, event := range []string{
		`{"choices":[{"delta":{"reasoning_content":` + word + `}}]}`, `{"choices":[{"delta":{"reasoning":` + word + `}}]}`,
		`{"choices":[{"delta":{"refusal":` + word + `}}]}`, `{"choices":[{"text":` + word + `}]}`,
		`{"choices":[{"delta":{"content":[{"type":"text","text":` + word + `}]}}]}`,
		`{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"text":` + word + `}]}]}}]}`,
		`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_123456","function":{"arguments":` + word + `}}]}}]}`,
		`{"choices":[{"delta":{"function_call":{"arguments":` + word + `}}}]}`,
		`{"type":"response.output_text.delta","item_id":"msg_123456","delta":` + word + `}`,
	} {
		if got := estimate("data: " + event + "\n\n"); got != want {
			t.Errorf("%s is %d tokens, want %d", event, got, want)
		}
	}
	for _, event := range []string{
		`{"id":` + word + `,"choices":[{"finish_reason":` + word + `,"logprobs":{"content":[{"token":` + word + `}]}}]}`,
		`{"type":"response.output_text.done","text":` + word + `}`, `{"type":"response.created","response":{"instructions":` + word + `}}`,
	} {
		if got := estimate("data: " + event + "\n\n"); got != 0 {
			t.Errorf("%s is %d tokens", event, got)
		}
	}
}

func TestATextIsEstimatedTheSameHoweverItIsWritten(t *testing.T) {
	const text = "你好, \"world\"!\n\tNaïve café – 42 😀 C:\\dir"
	plain, _ := json.Marshal(text)
	escaped := `"`
	for _, r := range text {
		if r > 0xFFFF {
			escaped += fmt.Sprintf(`\u%04x\u%04X`, 0xD800+(r-0x10000)>>10, 0xDC00+(r-0x10000)&0x3FF)
			continue
		}
		escaped += fmt.Sprintf(`\u%04x`, r)
	}
	a, b := estimate(delta(string(plain))), estimate(delta(escaped+`"`))
	if math.Abs(float64(a-b)) > 2 || a < 10 {
		t.Errorf("%s is %d tokens, and with escapes %d", text, a, b)
	}
	var words string
	for word := range strings.SplitAfterSeq(strings.Repeat("a word or two ", 20), " ") {
		words += delta(`"` + word + `"`)
	}
	if a, b := estimate(words), estimate(delta(`"`+strings.Repeat("a word or two ", 20)+`"`)); a != b {
		t.Errorf("%d tokens word by word, and %d at once", a, b)
	}
}

func TestALongTextIsEstimatedFromItsBeginning(t *testing.T) {
	short, long := strings.Repeat("a word or two ", 100), strings.Repeat("a word or two ", 10000)
	a, b := estimate(delta(`"`+short+`"`)), estimate(delta(`"`+long+`"`))
	if math.Abs(float64(b)/float64(a)-100) > 2 {
		t.Errorf("%d tokens, and a hundred times as much is %d", a, b)
	}
}

func TestTextIsNotEstimatedBesideAReportThatHasIt(t *testing.T) {
	report := func(n int) string {
		return fmt.Sprintf("data: {\"choices\":[{\"delta\":{\"content\":\"some words\"}}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":%d}}\n\n", n)
	}
	if got := estimate(report(2) + report(4)); got != 0 {
		t.Errorf("running totals leave %d tokens", got)
	}
	if got := estimate(report(2) + delta(`"some words"`)); got == 0 {
		t.Error("what follows the last report is not estimated")
	}
	// Some providers write the same small number into each chunk until the last.
	if got := estimate(report(1) + report(1) + report(1)); got == 0 {
		t.Error("a total that does not run is taken for one")
	}
}

func TestImagesAndKeysOfARequestAreNoText(t *testing.T) {
	image := strings.Repeat("iVBORw0KGgo", 20000)
	with := fmt.Sprintf(`{"messages":[{"role":"user","content":[{"image_url":{"url":"data:image/png;base64,%s"}},{"type":"text","text":"what is this?"}]}]}`, image)
	if n := usage.Request([]byte(with)); n < 4 || n > 30 {
		t.Errorf("%d tokens", n)
	}
	if n := usage.Request([]byte(`{"some_long_key_of_a_body_which_is_no_text":1}`)); n != 0 {
		t.Errorf("%d tokens", n)
	}
}
