package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"
)

// briskPace is between two chunks of a stream, of which a brisk model writes 20 a second.
const briskPace = 50 * time.Millisecond

// completion is the JSON answer, about 1 KB, of the given model.
func completion(model string) []byte {
	return fmt.Appendf(nil, `{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":%q,`+
		`"choices":[{"index":0,"message":{"role":"assistant","content":%q},"logprobs":null,"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":211,"completion_tokens":187,"total_tokens":398},"system_fingerprint":"fp_bench"}`,
		model, text(englishSentences, 700))
}

// modelOf finds the model in a request or a completion without decoding it; nil if there is none.
func modelOf(body []byte) []byte {
	const mark = `"model":"`
	_, rest, found := bytes.Cut(body, []byte(mark))
	if !found {
		return nil
	}
	model, _, found := bytes.Cut(rest, []byte{'"'})
	if !found {
		return nil
	}
	return model
}

const (
	sentMark    = `"system_fingerprint":"fp_`
	contentMark = `"content":"`
	doneEvent   = "data: [DONE]"
)

// reports says that a stream ends with a report of its usage, which OpenAI announces with null in every chunk.
type reports bool

// appendChunk writes one event of a stream. It carries the time of its sending, in
// nanoseconds of the wall clock that client and upstream share.
func appendChunk(b []byte, number int, sent time.Time, reports reports) []byte {
	b = append(b, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"`+providerModel+`",`+sentMark...)
	b = strconv.AppendInt(b, sent.UnixNano(), 10)
	b = append(b, `","choices":[{"index":0,"delta":{`+contentMark...)
	b = appendToken(b, number)
	b = append(b, `"},"logprobs":null,"finish_reason":null}]`...)
	if reports {
		b = append(b, `,"usage":null`...)
	}
	return append(b, "}\n\n"...)
}

func appendToken(b []byte, number int) []byte {
	b = append(b, " word "...)
	return strconv.AppendInt(b, int64(number), 10)
}

// readChunk returns the delay of a chunk that must be the one with this number.
func readChunk(line []byte, number int, arrived time.Time) (time.Duration, error) {
	bad := func() (time.Duration, error) {
		return 0, fmt.Errorf("chunk %d arrived as %q", number, line)
	}
	_, rest, found := bytes.Cut(line, []byte(sentMark))
	if !found || !bytes.HasPrefix(line, []byte(`data: {"id":"chatcmpl-bench"`)) || line[len(line)-1] != '}' || bytes.Contains(line, []byte(`"usage"`)) {
		return bad()
	}
	digits, rest, _ := bytes.Cut(rest, []byte{'"'})
	nanoseconds, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return bad()
	}
	_, rest, _ = bytes.Cut(rest, []byte(contentMark))
	content, _, found := bytes.Cut(rest, []byte{'"'})
	var want [32]byte
	if !found || !bytes.Equal(content, appendToken(want[:0], number)) {
		return bad()
	}
	return arrived.Sub(time.Unix(0, nanoseconds)), nil
}

// stream writes the events of one answer at their pace. The server reads from it and
// flushes each read, so it returns one event at a time. Where the client has left, the server notices
// with the next event.
type stream struct {
	start   time.Time
	pace    time.Duration
	number  int
	chunks  int
	reports reports
	ended   bool
	event   []byte
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.event) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		s.event = s.next(s.event[:0])
	}
	n := copy(p, s.event)
	s.event = append(s.event[:0], s.event[n:]...)
	return n, nil
}

func (s *stream) next(b []byte) []byte {
	if s.number == s.chunks {
		s.ended = true
		// As OpenAI does: a last chunk without choices, only for those who asked.
		if s.reports {
			b = append(b, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"`+providerModel+`",`+
				`"choices":[],"usage":{"prompt_tokens":211,"completion_tokens":`...)
			b = strconv.AppendInt(b, int64(s.chunks), 10)
			b = append(b, `,"total_tokens":`...)
			b = strconv.AppendInt(b, int64(211+s.chunks), 10)
			b = append(b, "}}\n\n"...)
		}
		return append(b, doneEvent+"\n\n"...)
	}
	if s.number == 0 {
		s.start = time.Now()
	}
	time.Sleep(time.Until(s.start.Add(time.Duration(s.number) * s.pace)))
	b = appendChunk(b, s.number, time.Now(), s.reports)
	s.number++
	return b
}
