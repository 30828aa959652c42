package tokens_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiktoken-go/tokenizer"

	"remora.dev/remora/sidecar/usage"
)

// judge counts tokens as gpt-4o does.
type judge struct{ tokenizer.Codec }

func newJudge(t *testing.T) judge {
	t.Helper()
	c, err := tokenizer.Get(tokenizer.O200kBase)
	if err != nil {
		t.Fatal(err)
	}
	return judge{c}
}

func (j judge) tokens(t *testing.T, text string) int {
	t.Helper()
	n, err := j.Count(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// corpus gives texts of each kind, of 200 characters: the files here, and the project's own code and prose.
func corpus(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	add := func(kind, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for r := []rune(string(b)); len(r) >= 200; r = r[200:] {
			all[kind] = append(all[kind], string(r[:200]))
		}
	}
	for _, kind := range []string{"English", "Chinese", "JSON", "mixed"} {
		add(kind, "testdata/"+strings.ToLower(kind)+".txt")
	}
	add("Markdown", "../../README.md")
	if err := filepath.WalkDir("../../sidecar", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			add("code", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// streamed estimates a text that comes as a stream of deltas, word by word.
func streamed(t *testing.T, text string) int {
	t.Helper()
	var m usage.Meter
	m.Begin(usage.Events)
	for _, word := range strings.SplitAfter(text, " ") {
		content, err := json.Marshal(word)
		if err != nil {
			t.Fatal(err)
		}
		b := fmt.Appendf(nil, "data: {\"choices\":[{\"delta\":{\"content\":%s}}]}\n\n", content)
		_, whole := m.Pass(b)
		m.Passed(whole)
	}
	return int(m.Text())
}

// deviation is how far estimates are from the truth.
type deviation struct{ n, estimate, truth, off, worst float64 }

func (d *deviation) add(estimate, truth int) {
	e := math.Abs(float64(estimate-truth)) / float64(truth)
	d.n++
	d.estimate += float64(estimate)
	d.truth += float64(truth)
	d.off += e
	d.worst = max(d.worst, e)
}

func (d *deviation) total() float64 { return d.estimate/d.truth - 1 }

func (d *deviation) String() string {
	return fmt.Sprintf("%4.0f texts: all together %+5.1f %%, one text on average %4.1f %%, at worst %4.1f %%", d.n, 100*d.total(), 100*d.off/d.n, 100*d.worst)
}

func TestEstimatesOfAnswersAreClose(t *testing.T) {
	j := newJudge(t)
	for kind, texts := range corpus(t) {
		var d deviation
		for _, text := range texts {
			d.add(streamed(t, text), j.tokens(t, text))
		}
		t.Logf("%-8s %s", kind, &d)
		if len(texts) < 2 || math.Abs(d.total()) > 0.12 || d.off/d.n > 0.15 {
			t.Errorf("%s: %s", kind, &d)
		}
	}
}

func TestEstimatesOfRequestsAreClose(t *testing.T) {
	j := newJudge(t)
	image := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x89PNG\x00\x17\xC3\xE2\x91", 20000)))
	for kind, texts := range corpus(t) {
		// Of each kind: a short request, a conversation, one long text, and a text with an image.
		long := strings.Join(texts, "\n")
		for len(long) < 64<<10 {
			long += "\n" + long
		}
		var talk []any
		count := 0
		for i := range 100 {
			text := texts[i%len(texts)]
			talk = append(talk, map[string]any{"role": "user", "content": text})
			count += j.tokens(t, text) + 4
		}
		for name, c := range map[string]struct {
			messages []any
			tokens   int
		}{
			"short":        {[]any{map[string]any{"role": "user", "content": texts[0]}}, j.tokens(t, texts[0]) + 4},
			"conversation": {talk, count},
			"one text":     {[]any{map[string]any{"role": "user", "content": long}}, j.tokens(t, long) + 4},
			"image": {[]any{map[string]any{"role": "user", "content": []any{
				map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/png;base64," + image}},
				map[string]any{"type": "text", "text": texts[0]},
			}}}, j.tokens(t, texts[0]) + 4},
		} {
			body, err := json.Marshal(map[string]any{"model": "m", "stream": true, "messages": c.messages})
			if err != nil {
				t.Fatal(err)
			}
			var d deviation
			d.add(int(usage.Request(body)), c.tokens)
			t.Logf("%-8s %-12s %8d bytes: %+5.1f %%", kind, name, len(body), 100*d.total())
			if math.Abs(d.total()) > 0.25 {
				t.Errorf("%s, %s: %.0f tokens, and it has %d", kind, name, d.estimate, c.tokens)
			}
		}
	}
}
