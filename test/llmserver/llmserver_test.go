package llmserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

const (
	qwen     = "dashscope.aliyuncs.com"
	moonshot = "api.moonshot.cn"
)

// limit ends a test that would otherwise hang; nothing waits for it.
const limit = 10 * time.Second

func start(t *testing.T, change ...func(*llmserver.Options)) *llmserver.Server {
	t.Helper()
	options := llmserver.Options{Hosts: []string{qwen, moonshot}}
	for _, f := range change {
		f(&options)
	}
	s, err := llmserver.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// post sends a body; headers are "Name: value".
func post(t *testing.T, s *llmserver.Server, path, body string, headers ...string) (*http.Response, error) {
	t.Helper()
	return postTo(limited(t), s, qwen, path, body, headers...)
}

func postTo(ctx context.Context, s *llmserver.Server, host, path, body string, headers ...string) (*http.Response, error) {
	r, err := newPost(host, path, body, headers...)
	if err != nil {
		return nil, err
	}
	return s.Client().Do(r.WithContext(ctx))
}

func newPost(host, path, body string, headers ...string) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodPost, "https://"+host+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	return r, nil
}

// answered sends a body and decodes the answer, which must have the status.
func answered(t *testing.T, s *llmserver.Server, status int, path, body string, headers ...string) map[string]any {
	t.Helper()
	a, err := post(t, s, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != status {
		t.Fatalf("%s %s: status %d, want %d: %s", path, body, a.StatusCode, status, raw)
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v: %s", path, err, raw)
	}
	return v
}

// at walks into decoded JSON: names and numbers of elements.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				t.Fatalf("%v has no element %d", v, step)
			}
			v = l[step]
		}
	}
	return v
}

// events reads the data of all events.
func events(t *testing.T, body io.Reader) []string {
	t.Helper()
	var all []string
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			all = append(all, data)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("after %d events: %v", len(all), err)
	}
	return all
}

const hello = `{"model":"qwen-turbo","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"hello there"}]}`

func streaming(further string) string {
	return strings.TrimSuffix(hello, "}") + `,"stream":true` + further + `}`
}
