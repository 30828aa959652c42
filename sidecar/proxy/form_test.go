package proxy_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"mime/multipart"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

const content = "\x00\xffab\r\n--"

// form is one of OpenAI's transcriptions. order says where the model stands.
func form(t *testing.T, size int, order ...string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, field := range order {
		name, value, _ := strings.Cut(field, "=")
		if name != "file" {
			_ = w.WriteField(name, value)
			continue
		}
		part, err := w.CreateFormFile("file", "model.mp3")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.Write(bytes.Repeat([]byte(content), size/len(content)))
	}
	_ = w.Close()
	return w.FormDataContentType(), b.String()
}

func TestTheModelOfAFormIsFound(t *testing.T) {
	r := newRig(t, providers+route("audio", `
  - matches: [{model: {exact: whisper-1}}]
    backendRefs: [{providerHost: api.moonshot.cn}]
  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	const small, large = 80 << 10, 3 << 20
	for _, c := range []struct {
		size  int
		order []string
		host  string
	}{
		{small, []string{"model=whisper-1", "file"}, moonshot},
		{small, []string{"file", "language=en", "model=whisper-1"}, moonshot},
		{small, []string{"file", "model=other"}, qwen},
		{small, []string{"model=whisper-1x", "file"}, qwen},
		{large, []string{"model=whisper-1", "file"}, moonshot},
		{large, []string{"file", "model=whisper-1"}, qwen}, // too late: the form was on its way
	} {
		contentType, body := form(t, c.size, c.order...)
		hash := fmt.Sprintf("%x", sha256.Sum256(bytes.Repeat([]byte(content), c.size/len(content))))
		for _, chunked := range []bool{false, true} {
			framed := lengthOf(body) + "\r\n" + body
			if chunked {
				framed = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			}
			w := r.dial()
			w.send("POST /v1/audio/transcriptions HTTP/1.1\r\nHost: audio\r\nAuthorization: Bearer mine\r\nContent-Type: " + contentType + "\r\n" + framed)
			got, err := w.receive("POST")
			if err != nil || got.status != 200 {
				t.Fatalf("%v: %v %+v", c.order, err, got)
			}
			q := r.last()
			if q.Host != c.host || q.Upload == nil || q.Upload.Size != int64(len(body)) || q.Upload.Files[0].SHA256 != hash || !strings.HasPrefix(q.Header.Get("Authorization"), "Bearer sk-") {
				t.Errorf("%v, chunked %v: %s got %d bytes of %d, %s", c.order, chunked, q.Host, len(q.Body), len(body), q.Header.Get("Authorization"))
			}
			if sentInChunks := q.Header.Get("Content-Length") == ""; sentInChunks != (chunked && c.size == large) {
				t.Errorf("%v, chunked %v: Content-Length %q", c.order, chunked, q.Header.Get("Content-Length"))
			}
		}
	}
}

func TestAFormWithTwoModelsIsRefused(t *testing.T) {
	r := newRig(t, providers)
	contentType, body := form(t, 1<<10, "model=a", "file", "model=b")
	r.do("POST", "http://"+qwen+"/v1/audio/transcriptions", body, "Content-Type", contentType).wantError(t, 400, routing.DuplicateKey, "model")
}

func TestWhatIsNoFormIsTheProvidersToJudge(t *testing.T) {
	r := newRig(t, providers)
	for _, contentType := range []string{"multipart/form-data", "text/plain", "multipart/form-data; boundary=else"} {
		if got := r.do("POST", "http://"+qwen+"/v1/audio/transcriptions", "what", "Content-Type", contentType); got.status != 400 || strings.Contains(got.body, "Remora") {
			t.Errorf("%s: %+v", contentType, got)
		}
	}
	contentType, body := form(t, 1<<10, "model=whisper-1", "file")
	if got := r.do("POST", "http://"+qwen+"/v1/audio/transcriptions", body, "Content-Type", contentType, "Content-Encoding", "gzip"); got.status == 415 {
		t.Errorf("a form is passed on as it is: %+v", got)
	}
	if q := r.last(); q.Header.Get("Content-Encoding") != "gzip" || string(q.Body) != body {
		t.Errorf("the provider got %v", q.Header)
	}
}

func TestAFormIsBoundByTheLimitOfItsRule(t *testing.T) {
	r := newRig(t, providers+route("audio", `
  - name: whisper
    matches: [{model: {exact: whisper-1}}]
    limits: {requestBody: 2Mi}
    backendRefs: [{providerHost: api.moonshot.cn}]
  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	contentType, body := form(t, 3<<20, "model=whisper-1", "file")
	for _, framed := range []string{lengthOf(body) + "\r\n" + body, fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)} {
		w := r.dial()
		_, _ = io.WriteString(w, "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: audio\r\nContent-Type: "+contentType+"\r\n"+framed)
		got, err := w.receive("POST")
		if err != nil {
			t.Fatal(err)
		}
		got.wantError(t, 413, routing.RequestTooLarge, "2097152", "limits.requestBody of rule whisper of LLMRoute default/audio")
	}
}
