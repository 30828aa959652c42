package proxy_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"remora.dev/remora/sidecar/routing"
)

// packed compresses a text.
func packed(t *testing.T, coding, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "gzip", "x-gzip", "GZIP":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "raw deflate":
		w, err = flate.NewWriter(&b, flate.BestCompression)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var codings = []string{"gzip", "x-gzip", "GZIP", "deflate", "raw deflate", "br", "zstd"}

func TestACompressedPromptIsReadAndEdited(t *testing.T) {
	r := newRig(t, providers)
	long := `{"messages":[{"role":"user","content":"` + strings.Repeat("many words and 中文 ", 20000) + `"}]}`
	for _, coding := range codings {
		for _, text := range []string{prompt, long} {
			body := packed(t, coding, text)
			got := r.do("POST", "http://"+qwen, body, "Content-Encoding", strings.TrimPrefix(coding, "raw "))
			q := r.last()
			if want := `{"model":"qwen-1.8b-chat",` + text[1:]; got.status != 200 || string(q.Body) != want {
				t.Errorf("%s: %d %.200s, the provider got %.200s", coding, got.status, got.body, q.Body)
			}
			if v, there := q.Header["Content-Encoding"]; there {
				t.Errorf("%s: the provider is told %q", coding, v)
			}
			// In chunks.
			w := r.dial()
			w.send(post("/", "Transfer-Encoding: chunked\r\nContent-Encoding: "+strings.TrimPrefix(coding, "raw ")+"\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)))
			if got, err := w.receive("POST"); err != nil || got.status != 200 {
				t.Errorf("%s, in chunks: %v %+v", coding, err, got)
			}
		}
	}
}

func TestACompressedPromptThatIsNoneIsRefused(t *testing.T) {
	r := newRig(t, providers)
	for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
		good := packed(t, coding, `{"messages":"`+strings.Repeat("some words ", 1000)+`"}`)
		for name, body := range map[string]string{
			"empty": "", "plain": prompt, "cut": good[:len(good)/2], "one byte short": good[:len(good)-1], "followed": good + "what is this",
		} {
			got := r.do("POST", "http://"+qwen, body, "Content-Encoding", coding)
			if got.status != 400 || !strings.Contains(got.body, "InvalidRequest") && !strings.Contains(got.body, "InvalidJSON") {
				t.Errorf("%s, %s: %+v", coding, name, got)
			}
		}
	}
	for _, coding := range []string{"gzip, br", "compress", "identity, gzip", "snappy", "gzip;q=1"} {
		r.do("POST", "http://"+qwen, packed(t, "gzip", prompt), "Content-Encoding", coding).wantError(t, 415, routing.UnsupportedEncoding, "gzip, deflate, br and zstd")
	}
	w := r.dial()
	w.send(post("/", "Content-Encoding: gzip\r\nContent-Encoding: br\r\n"+lengthOf(prompt), prompt))
	got, err := w.receive("POST")
	if err != nil {
		t.Fatal(err)
	}
	got.wantError(t, 415, routing.UnsupportedEncoding)
	for _, q := range r.provider.Requests() {
		if q.Header.Get("Content-Encoding") != "" {
			t.Errorf("the provider is told %q", q.Header.Get("Content-Encoding"))
		}
	}
}

func TestABombIsDefused(t *testing.T) {
	r := newRig(t, providers+route("small", `
  - limits: {requestBody: 1Mi}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
		bomb := packed(t, coding, `{"messages":"`+strings.Repeat(" ", 20<<20)+`"}`)
		r.do("POST", "http://small", bomb, "Content-Encoding", coding).wantError(t, 413, routing.RequestTooLarge, "1048576")
	}
}

func TestWhatNobodyLooksIntoStaysCompressed(t *testing.T) {
	r := newRig(t, keyless)
	body := packed(t, "gzip", "whatever")
	for _, coding := range []string{"gzip", "gzip, br", "odd"} {
		r.do("POST", "http://"+vllm+"/v1/files", body, "Content-Encoding", coding)
		if q := r.last(); string(q.Body) != body || q.Header.Get("Content-Encoding") != coding {
			t.Errorf("%s: the provider got %q, %q", coding, q.Header.Get("Content-Encoding"), q.Body)
		}
	}
}
