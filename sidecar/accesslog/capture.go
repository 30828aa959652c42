package accesslog

import (
	"unicode/utf8"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/telemetry"
)

// maxRaw is more than anybody captures of a body.
const maxRaw = 128 << 10

// texts is room for what becomes of a capture.
type texts struct {
	read           reader
	raw, redacted  []byte
	prompt, answer []byte
}

// excerpt is what a line shows of a prompt or an answer.
type excerpt struct {
	text      []byte
	truncated bool
}

// capture adds prompt and answer.
func (e *line) capture() {
	if !captured(e.record, e.settings) {
		return
	}
	prompt, answer := e.taken()
	for _, f := range [...]struct {
		key, truncated string
		excerpt
	}{{"prompt", "prompt_truncated", prompt}, {"answer", "answer_truncated", answer}} {
		if len(f.text) > 0 {
			e.escaped(f.key, f.text)
		}
		e.truth(f.truncated, f.excerpt.truncated)
	}
}

// taken gives the excerpts, which are good until the line is written.
func (e *line) taken() (prompt, answer excerpt) {
	c, room := e.record.Capture, e.settings.Capture.Bytes
	if room <= 0 {
		room = telemetry.DefaultCaptureBytes
	}
	room = min(room, telemetry.MaxCaptureBytes)
	t := &e.texts
	// Who left may have been cut off in the middle of a word, and so may have been who was left.
	early := e.record.Cut != record.Nobody
	prompt = t.excerpt(t.prompt[:0], c.Prompt, c.PromptTruncated, early, room)
	answer = t.excerpt(t.answer[:0], c.Answer, c.AnswerTruncated, early, room)
	t.prompt, t.answer = prompt.text, answer.text
	return prompt, answer
}

// excerpt makes text of bytes, takes out what is secret, and only then cuts it: what is cut off cannot be recognised.
func (t *texts) excerpt(to, raw []byte, truncated, early bool, room int) excerpt {
	if len(raw) > maxRaw {
		raw, truncated = raw[:maxRaw], true
	}
	end := complete
	if truncated || early {
		end = cut
	}
	if end == cut {
		raw = wholeRunes(raw)
	}
	t.raw, t.redacted = t.raw[:0], t.redacted[:0]
	for _, piece := range t.read.pieces(raw) {
		if t.raw = plainText(t.raw[:0], piece); len(t.raw) == 0 {
			continue
		}
		if len(t.redacted) > 0 {
			t.redacted = append(t.redacted, '\n')
		}
		t.redacted = redact(t.redacted, t.raw, end)
	}
	truncated = truncated || t.read.missed
	if len(t.redacted) <= room {
		return excerpt{append(to, t.redacted...), truncated}
	}
	for room > 0 && !utf8.RuneStart(t.redacted[room]) {
		room--
	}
	return excerpt{append(to, t.redacted[:room]...), true}
}

// wholeRunes leaves out the beginning of a character whose rest is missing: it might be one that is not seen, within a word.
func wholeRunes(raw []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(raw); i++ {
		if tail := raw[len(raw)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return raw[:len(raw)-i]
			}
			break
		}
	}
	return raw
}

// plainText appends text as UTF-8 in which what is hidden is left out, so that nothing is recognised by people only, and what acts or cannot
// be read is replaced; of several in a row, there is one replacement. Letters and digits of double width become usual ones.
func plainText(b, raw []byte) []byte {
	replaced := false
	for len(raw) > 0 {
		c, size := utf8.DecodeRune(raw)
		raw = raw[size:]
		switch {
		case c == '\n', c == '\t':
			b, replaced = append(b, byte(c)), false
		case c == '\r', isHidden(c):
		case c == utf8.RuneError, isControl(c):
			if !replaced {
				b, replaced = append(b, unreadable...), true
			}
		case c >= 0xff10 && c <= 0xff1a, c >= 0xff20 && c <= 0xff3a, c >= 0xff41 && c <= 0xff5a:
			b, replaced = append(b, byte(c-0xff00+' ')), false
		default:
			b, replaced = utf8.AppendRune(b, c), false
		}
	}
	return b
}
