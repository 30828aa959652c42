package llmserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
)

// uploadKept is how much of an upload is remembered, and how long a field that is no file may be, in bytes.
const uploadKept = 1 << 20

// Upload is what a multipart/form-data body had in it. It can be of any size: files are counted and hashed, not kept.
type Upload struct {
	Fields map[string]string // those that are no files
	Files  []File
	Size   int64 // of the body, in bytes

	wrong error // why it is no proper form
}

// File is a file in an upload.
type File struct {
	Field  string // the name in the form
	Name   string // the file's own
	Size   int64
	SHA256 string // in hexadecimal
}

// formBoundary tells whether a body is a form, and what parts it. A boundary that is missing makes every form wrong.
func formBoundary(header http.Header) (string, bool) {
	kind, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	return params["boundary"], err == nil && kind == "multipart/form-data"
}

// readUpload reads a form to the end of its body, of which it keeps the beginning. The error is the connection's; what is
// wrong with the form is for the answer to say.
func readUpload(from io.Reader, boundary string, keep *bytes.Buffer) (*Upload, int64, error) {
	all := &beginning{keep: keep}
	body := io.TeeReader(from, all)
	u := &Upload{Fields: map[string]string{}}
	u.wrong = u.read(multipart.NewReader(body, boundary))
	_, err := io.Copy(io.Discard, body) // what follows the form is still of the body
	u.Size = all.size
	return u, all.size, err
}

func (u *Upload) read(form *multipart.Reader) error {
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := part.FormName()
		if name == "" {
			return errors.New("a part has no name")
		}
		if part.FileName() != "" {
			hash := sha256.New()
			size, err := io.Copy(hash, part)
			if err != nil {
				return err
			}
			u.Files = append(u.Files, File{Field: name, Name: part.FileName(), Size: size, SHA256: hex.EncodeToString(hash.Sum(nil))})
			continue
		}
		value, err := io.ReadAll(io.LimitReader(part, uploadKept+1))
		if err != nil {
			return err
		}
		if _, twice := u.Fields[name]; twice || len(value) > uploadKept {
			return fmt.Errorf("the field %q comes twice, or is too long", name)
		}
		u.Fields[name] = string(value)
	}
}

// beginning counts what is written, and keeps the first of it.
type beginning struct {
	keep *bytes.Buffer
	size int64
}

func (b *beginning) Write(p []byte) (int, error) {
	b.size += int64(len(p))
	b.keep.Write(p[:min(len(p), uploadKept-b.keep.Len())])
	return len(p), nil
}

// withForm checks that the body is a form with the file and the fields that the operation cannot do without.
func withForm(f func(*question, File) answer, file string, required ...string) func(*question) answer {
	return func(q *question) answer {
		refuse := func(code, format string, a ...any) answer {
			return failure(http.StatusBadRequest, fmt.Sprintf(format, a...), code)
		}
		if q.Upload == nil {
			return refuse("bad_content_type", "Send multipart/form-data.")
		}
		if q.Upload.wrong != nil {
			return refuse("bad_form", "Could not parse the form: %v", q.Upload.wrong)
		}
		for _, name := range required {
			if q.Upload.Fields[name] == "" {
				return refuse("missing_"+name, "you must provide a %s parameter", name)
			}
		}
		for _, one := range q.Upload.Files {
			if one.Field == file {
				return f(q, one)
			}
		}
		return refuse("missing_"+file, "you must provide a %s parameter", file)
	}
}

// heard answers POST …/audio/transcriptions and …/translations: it tells how much it heard.
func heard(q *question, file File) answer {
	text := fmt.Sprintf("I am %s at %s. I heard %d bytes of %s.", q.Upload.Fields["model"], q.host, file.Size, file.Name)
	tokens := Tokens{Answers: 1, Input: int(file.Size>>10) + 1, Output: countWords(text)}
	return q.charged(map[string]any{"text": text, "sha256": file.SHA256}, tokens, map[string]any{
		"type": "tokens", "input_tokens": tokens.Input, "output_tokens": tokens.Output, "total_tokens": tokens.Input + tokens.Output,
	})
}

// edited answers POST …/images/edits and …/variations.
func edited(q *question, file File) answer {
	return q.drawn(strings.TrimSpace(q.Upload.Fields["prompt"] + " " + file.SHA256))
}
