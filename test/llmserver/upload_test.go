package llmserver_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

// upload sends a form whose file has so many bytes, as it is made, and gives the answer and the file's hash.
func upload(t *testing.T, s *llmserver.Server, path, field string, size int64, fields ...string) (int, map[string]any, string) {
	t.Helper()
	in, out := io.Pipe()
	form := multipart.NewWriter(out)
	hash := sha256.New()
	go func() {
		for i := 0; i < len(fields); i += 2 {
			_ = form.WriteField(fields[i], fields[i+1])
		}
		if field != "" {
			part, _ := form.CreateFormFile(field, "a.wav")
			_, _ = io.CopyN(io.MultiWriter(part, hash), everyByte{}, size)
		}
		_ = form.Close()
		out.Close()
	}()
	r, err := http.NewRequestWithContext(limited(t), http.MethodPost, "https://"+qwen+path, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", form.FormDataContentType())
	a, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	var v map[string]any
	if err := json.NewDecoder(a.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, v, hex.EncodeToString(hash.Sum(nil))
}

type everyByte struct{}

func (everyByte) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

func TestAnUploadIsHashedAndNotKept(t *testing.T) {
	const size = 20 << 20
	for _, quiet := range []bool{false, true} {
		s := start(t, func(o *llmserver.Options) { o.Quiet = quiet })
		status, v, hash := upload(t, s, "/v1/audio/transcriptions", "file", size, "model", "whisper")
		if status != 200 || v["sha256"] != hash || at(t, v, "usage", "input_tokens") != float64(size>>10+1) {
			t.Errorf("%d %v", status, v)
		}
		s.Close() // the answer has ended for the server as well
		if got := s.Tally(qwen).Reported; got.Input != size>>10+1 || got.Answers != 1 {
			t.Errorf("%+v", got)
		}
		if quiet {
			continue
		}
		q := s.Requests()[0]
		if len(q.Body) != 1<<20 || q.Upload.Size < size || q.Upload.Files[0] != (llmserver.File{Field: "file", Name: "a.wav", Size: size, SHA256: hash}) ||
			q.Upload.Fields["model"] != "whisper" || !bytes.HasPrefix(q.Body, []byte("--")) {
			t.Errorf("%d bytes kept, %+v", len(q.Body), q.Upload)
		}
	}
}

func TestAFormMustHaveWhatItsOperationNeeds(t *testing.T) {
	s := start(t)
	f := func(path, field string, want string, fields ...string) {
		t.Helper()
		status, v, _ := upload(t, s, path, field, 10, fields...)
		switch {
		case want == "" && status == 200:
		case want == "" || status != 400 || at(t, v, "error", "code") != want:
			t.Errorf("%s with %q and %q: %d %v, want %q", path, field, fields, status, v, want)
		}
	}
	f("/v1/audio/transcriptions", "file", "missing_model")
	f("/v1/audio/transcriptions", "", "missing_file", "model", "m")
	f("/v1/audio/transcriptions", "fiel", "missing_file", "model", "m")
	f("/v1/audio/transcriptions", "file", "bad_form", "model", "m", "model", "n")
	f("/v1/audio/translations", "file", "", "model", "m")
	f("/v1/images/edits", "image", "missing_prompt", "model", "m")
	f("/v1/images/edits", "image", "", "model", "m", "prompt", "p")
	f("/v1/images/variations", "image", "", "model", "m")
}

func TestABrokenFormIsRefusedAndItsConnectionLives(t *testing.T) {
	s := start(t)
	client := s.Client()
	defer client.CloseIdleConnections()
	whole := "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n"
	for _, form := range []string{whole[:20], strings.Replace(whole, "; name=\"model\"", "", 1), strings.TrimSuffix(whole, "--\r\n"), "", whole + "more"} {
		r, err := newPost(qwen, "/v1/audio/transcriptions", form, "Content-Type: multipart/form-data; boundary=b")
		if err != nil {
			t.Fatal(err)
		}
		a, err := client.Do(r.WithContext(limited(t)))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(a.Body)
		a.Body.Close()
		if err != nil || a.StatusCode != 400 || s.Connections() != 1 {
			t.Errorf("%q: %d %s, %d connections", form, a.StatusCode, raw, s.Connections())
		}
	}
}
