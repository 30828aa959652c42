package llmserver_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

// BenchmarkQuiet shows what the provider adds to a measured proxy: net/http as a client is in the figures as well.
func BenchmarkQuiet(b *testing.B) {
	f := func(name, body, fault string) {
		b.Run(name, func(b *testing.B) {
			s, err := llmserver.Start(llmserver.Options{Hosts: []string{qwen}, Quiet: true})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			client := s.Client()
			for b.Loop() {
				r, err := newPost(qwen, "/v1/chat/completions", body, llmserver.FaultHeader+": "+fault)
				if err != nil {
					b.Fatal(err)
				}
				a, err := client.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, a.Body); err != nil {
					b.Fatal(err)
				}
				a.Body.Close()
			}
		})
	}
	f("short", hello, "")
	f("prompt of 64 KiB", strings.Replace(hello, "hello there", strings.Repeat("word ", 64<<10/5), 1), "")
	for _, chunks := range []int{10, 1000} {
		f(fmt.Sprintf("stream of %d chunks", chunks), streaming(""), fmt.Sprintf("chunks=%d", chunks))
	}
}
