package usage_test

import (
	"strings"
	"testing"

	"remora.dev/remora/sidecar/usage"
)

// chunk is what OpenAI sends for a word: about 200 bytes.
const chunk = `data: {"id":"chatcmpl-9lMgfRSWPHcw51s6wxKT1YEO2CKpd","object":"chat.completion.chunk","created":1721075653,"model":"gpt-4o-mini",` +
	`"choices":[{"index":0,"delta":{"content":" model"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n"

func BenchmarkChunk(b *testing.B) {
	for name, form := range map[string]usage.Form{"asked by the app": usage.Events, "removed": usage.AskedEvents} {
		b.Run(name, func(b *testing.B) {
			var m usage.Meter
			m.Begin(form)
			buf := make([]byte, len(chunk))
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, chunk)
				_, whole := m.Pass(buf)
				m.Passed(whole)
			}
		})
	}
}

func BenchmarkWholeAnswer(b *testing.B) {
	answer := []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1721075653,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("What a model says. ", 40) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}}`)
	var m usage.Meter
	b.SetBytes(int64(len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		m.BeginWithoutText(usage.Whole)
		m.Read(answer)
	}
}

func BenchmarkRequest(b *testing.B) {
	for name, body := range map[string]string{
		"1 KiB":            `{"messages":[{"role":"user","content":"` + strings.Repeat("What a model is told. ", 45) + `"}]}`,
		"64 KiB, one text": `{"messages":[{"role":"user","content":"` + strings.Repeat("What a model is told. ", 2900) + `"}]}`,
		"64 KiB, many":     `{"messages":[` + strings.Repeat(`{"role":"user","content":"What a model is told. "},`, 1300) + `{}]}`,
		"1 MiB, an image":  `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("iVBORw0KGgo", 95000) + `"}}]}]}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			text := []byte(body)
			for b.Loop() {
				usage.Request(text)
			}
		})
	}
}
