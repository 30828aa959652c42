package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httputil"
	"reflect"
	"testing"
	"testing/iotest"
)

// FuzzScan asks encoding/json: what scan accepts must be read the same way there, and after splicing
// nothing but model and stream may be different.
func FuzzScan(f *testing.F) {
	for _, text := range []string{
		`{}`, ` { } `, `{"model":"a","stream":false,"messages":[{"role":"user","content":"\"}{"}]}`, `{"mod\u0065l":"\ud83d\ude00"}`,
		`{"model":null}`, `{"model":1e5,"stream":"x"}`, `{"ſtream":1}`, `{"Model":1}`, `{"a":{"b":[1,{"c":"\\"}]},"model":"x"}`,
		`{"model":"a","model":"b"}`, `{"stream_options":{"include_usage":true}}`,
		`{"stream_options":{},"model":"a"}`, `{"model":"a","stream_options":{"include_usage":false,"x":1}}`, `{"stream_options":null}`,
		`{"stream_options":{"x":[1]},"stream":true}`, `{"stream_options":{"Include_usage":1}}`, `{"stream_options":1}`, "{\"a\":\"\x01\"}", "{\"\xff\":1,\"\xfe\":2}", `{"a":01}`, `{"a":[}]}`, `{"a":1e700}`, "{\"model\":\"\xff\"}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, failure := scan(text)
		if failure != nil {
			return
		}
		asks := d.canAsk(text)
		spliced := joinPieces(splice(text, &d, edits{model: []byte(`"configured"`), stream: true, usage: asks}))
		again, failure := scan(spliced)
		if failure != nil || string(again.modelValue) != "configured" || !again.stream.present() || asks && again.canAsk(spliced) {
			t.Fatalf("%q becomes %q: %v", text, spliced, failure)
		}
		if !json.Valid(text) {
			return // deeper text is not judged
		}
		var before, after map[string]any
		if err := decode(text, &before); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if err := decode(spliced, &after); err != nil {
			t.Fatalf("%q becomes %q: %v", text, spliced, err)
		}
		model, isString := before["model"].(string)
		if isString != d.modelString || isString && model != string(d.modelValue) {
			t.Fatalf("%q: model %q, and encoding/json has %q", text, d.modelValue, model)
		}
		stream, there := before["stream"]
		if there != d.stream.present() {
			t.Fatalf("%q: stream %v", text, stream)
		}
		before["model"] = "configured"
		if !there {
			before["stream"] = true
		}
		if asks {
			options, _ := before["stream_options"].(map[string]any)
			if options == nil {
				options = map[string]any{}
			}
			options["include_usage"] = true
			before["stream_options"] = options
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%q becomes %q", text, spliced)
		}
	})
}

func joinPieces(s segments) []byte { return bytes.Join(s.pieces(), nil) }

func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // numbers have no bounds
	return d.Decode(v)
}

// FuzzAnswer asks net/http's reader of chunks: what both accept must be the same.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		"0\r\n\r\n", "2\r\nok\r\n0\r\n\r\n", "2;a=b\r\nok\r\n00\r\nX: 1\r\n\r\n", "A \r\n0123456789\r\n0\r\n\r\nrest",
		"2\nok\n0\n\n", "2\r\nok\r\n+0\r\n\r\n", "2\r\nokk\r\n0\r\n\r\n", "0000000000000000001\r\nx\r\n0\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		read := func(in io.Reader) ([]byte, error) {
			a := answer{br: bufio.NewReaderSize(in, readBufferSize), chunked: true}
			var all []byte
			for {
				b, err := a.next()
				if errors.Is(err, io.EOF) {
					return all, nil
				}
				if err != nil {
					return all, err
				}
				all = append(all, b...)
				a.skip(len(b))
			}
		}
		got, err := read(bytes.NewReader(text))
		slow, slowErr := read(iotest.OneByteReader(bytes.NewReader(text)))
		if !bytes.Equal(got, slow) || (err == nil) != (slowErr == nil) {
			t.Fatalf("%q: %q, %v; byte by byte %q, %v", text, got, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(text)))
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q: %q, and net/http reads %q", text, got, want)
		}
	})
}
