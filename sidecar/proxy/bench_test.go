package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

func prompts() map[string][]byte {
	turn := `{"role":"user","content":"Say \"hello\" to the remora, please."},`
	// As people write: no two sentences of one length, so that the processor cannot learn where a string ends.
	var dialogue strings.Builder
	random := rand.New(rand.NewPCG(1, 2))
	for dialogue.Len() < 64<<10 {
		fmt.Fprintf(&dialogue, `{"role":"%s","content":"%s, \"%s\"."},`, []string{"user", "assistant", "tool"}[random.IntN(3)],
			strings.Repeat("word ", random.IntN(30)), strings.Repeat("word ", random.IntN(5)))
	}
	return map[string][]byte{
		"64KB-dialogue": []byte(`{"model":"m","messages":[` + strings.TrimSuffix(dialogue.String(), ",") + `]}`),
		"1KB":           []byte(`{"model":"m","messages":[` + strings.TrimSuffix(strings.Repeat(turn, 15), ",") + `]}`),
		"64KB-one-text": []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("a long text ", 5400) + `"}]}`),
		"64KB-messages": []byte(`{"model":"m","messages":[` + strings.TrimSuffix(strings.Repeat(turn, 970), ",") + `]}`),
		"64KB-Chinese":  []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("請幫我寫一首詩。", 2700) + `"}]}`),
	}
}

func BenchmarkScan(b *testing.B) {
	for name, text := range prompts() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, f := scan(text); f != nil {
					b.Fatal(f)
				}
			}
		})
	}
}

func BenchmarkSplice(b *testing.B) {
	text := prompts()["64KB-messages"]
	d, f := scan(text)
	if f != nil {
		b.Fatal(f)
	}
	all := edits{model: []byte(`"configured"`), stream: true, usage: true}
	b.ReportAllocs()
	for b.Loop() {
		if s := splice(text, &d, all); s.size == 0 {
			b.Fatal("nothing")
		}
	}
}

func BenchmarkRequestHead(b *testing.B) {
	var h fasthttp.RequestHeader
	h.SetMethod("POST")
	h.SetHost("dashscope.aliyuncs.com")
	h.SetContentType("application/json")
	h.SetUserAgent("OpenAI/Python 1.0")
	h.Set("Authorization", "Bearer mine")
	h.Set("Connection", "keep-alive")
	for i := range 6 {
		h.Set(fmt.Sprintf("X-Stainless-%d", i), "value")
	}
	o := outgoing{
		method: []byte("POST"), path: "/v1/chat/completions", authority: "dashscope.aliyuncs.com", length: 1000,
		target: &routing.Target{}, operation: &routing.Operation{JSON: true},
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = o.head(dst[:0], &h)
	}
}
