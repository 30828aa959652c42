package accesslog

import (
	"bytes"
	"strconv"
)

// ending is how a text ends.
type ending uint8

const (
	complete ending = iota
	cut             // perhaps in the middle of a word
)

// What stands for what is taken out, beside [image 12 kB] and its like.
const (
	aKey         = "[key]"
	aToken       = "[token]"
	aSecret      = "[secret]"
	anEmail      = "[email]"
	credentials  = "[credentials]"
	maxAuthority = 512 // bytes of a URL in which name and password are looked for
)

// redact appends text without what looks like a secret or names a person. It looks at each byte a fixed number of times. Of a text that is
// cut, the last word is left out: whether it is a secret cannot be told. It is a help, not a guarantee: a name or an address in plain
// words is not recognised.
func redact(to, text []byte, end ending) []byte {
	w := words{to: to, from: len(to), text: text, end: end}
	w.run()
	return redactNumbers(w.to, w.from, end)
}

// words takes out what is recognised by the word that it is, or that is before it. A word is of letters, digits and -_.+/@%~.
type words struct {
	to    []byte
	from  int // where in to this text begins
	text  []byte
	at    int
	end   ending
	after context
}

// context is what the words before say of the next one.
type context uint8

const (
	nothing context = iota
	label           // it was password, api_key or so: what follows : or = is secret
	value           // what follows is secret
	scheme          // it was Bearer or so: what follows may be secret
)

func (w *words) run() {
	for w.at < len(w.text) {
		c := w.text[w.at]
		if w.after == value && !isBetween(c) {
			w.takeValue()
			continue
		}
		if isWord(c) {
			w.word()
			continue
		}
		w.separator(c)
	}
}

// separator passes on a byte between words.
func (w *words) separator(c byte) {
	switch {
	case w.after == label && (c == ':' || c == '='):
		w.after = value
	case c == '"' || c == '\'' || c == ' ' || c == '\\' || c == '\t' || w.after == value && isBetween(c):
	default:
		w.after = nothing
	}
	if c == ':' && bytes.HasPrefix(w.text[w.at:], []byte("://")) {
		w.authority()
		return
	}
	w.to = append(w.to, c)
	w.at++
}

// isBetween tells whether a byte may be between : or = and the value.
func isBetween(c byte) bool {
	return c == ' ' || c == '\t' || c == '"' || c == '\'' || c == '\\' || c == ':' || c == '=' || c == '>' || c == '`'
}

// takeValue takes out what a label announces, up to the end of it: a quote as it began, or what no password has in it.
func (w *words) takeValue() {
	w.after = nothing
	quote := byte(0)
	if n := len(w.to); n > w.from && (w.to[n-1] == '"' || w.to[n-1] == '\'' || w.to[n-1] == '`') {
		quote = w.to[n-1]
	}
	from := w.at
	for w.at < len(w.text) && !endsValue(w.text[w.at], quote) {
		w.at++
	}
	v := w.text[from:w.at]
	first, _, _ := bytes.Cut(v, []byte(" "))
	switch {
	case isScheme(first):
		w.to, w.after, w.at = append(w.to, first...), value, from+len(first)
	case w.end == cut && w.at == len(w.text):
	case len(v) == 0, v[0] == '{', v[0] == '[', string(v) == "null", string(v) == "true", string(v) == "false":
		w.at = from // nothing secret: an object, or a word
		if len(v) > 0 {
			w.to = append(w.to, w.text[from])
			w.at++
		}
	default:
		w.to = append(w.to, aSecret...)
	}
}

func endsValue(c, quote byte) bool {
	if quote != 0 {
		return c == quote || c == '\n'
	}
	return c <= ' ' || c == ',' || c == ';' || c == '&' || c == '"' || c == '\'' || c == '}' || c == ']' || c == ')'
}

// authority takes name and password out of a URL.
func (w *words) authority() {
	const sign = "://"
	w.to = append(w.to, sign...)
	w.at += len(sign)
	rest := w.text[w.at:]
	n := bytes.IndexAny(rest[:min(len(rest), maxAuthority)], " \t\n\"'`<>/?#,")
	if n < 0 {
		if n = min(len(rest), maxAuthority); n == len(rest) && w.end == cut {
			w.at = len(w.text)
			return
		}
	}
	if i := bytes.LastIndexByte(rest[:n], '@'); i >= 0 {
		w.to = append(w.to, credentials...)
		w.at += i
		w.to = append(w.to, '@')
		w.at++
	}
}

// word passes on the word that begins here, or what stands for it.
func (w *words) word() {
	from := w.at
	for w.at < len(w.text) && isWord(w.text[w.at]) {
		w.at++
	}
	word, after := w.text[from:w.at], w.after
	w.after = nothing
	if i := bytes.Index(word, []byte("-----BEGIN")); i >= 0 {
		w.to = appendWithoutEmail(w.to, word[:i])
		w.armour()
		return
	}
	if w.data(word) || w.end == cut && w.at == len(w.text) {
		return
	}
	switch {
	case after == scheme && isCredential(word):
		w.replace(aToken)
	case isScheme(word):
		w.to, w.after = append(w.to, word...), scheme
	case isLabel(word):
		w.to, w.after = append(w.to, word...), label
	default:
		w.rest(word)
	}
}

// armour leaves out keys and certificates between their lines, up to the end where the last one is missing.
func (w *words) armour() {
	w.to = append(w.to, aKey...)
	last := bytes.Index(w.text[w.at:], []byte("-----END"))
	if last < 0 {
		w.at = len(w.text)
		return
	}
	w.at += last + len("-----END")
	if dashes := bytes.Index(w.text[w.at:min(len(w.text), w.at+64)], []byte("-----")); dashes >= 0 {
		w.at += dashes + len("-----")
	}
}

// replace writes what stands for a word. The signs that fill up base64 belong to it.
func (w *words) replace(by string) {
	w.to = append(w.to, by...)
	for w.at < len(w.text) && w.text[w.at] == '=' {
		w.at++
	}
}

// minData is from how many letters on a word is an image, or something like it.
const minData = 256

// data replaces what is no text, and tells how much it was.
func (w *words) data(word []byte) bool {
	const encoded = ";base64,"
	tail := w.to[max(w.from, len(w.to)-128):]
	inURL := bytes.HasSuffix(tail, []byte(encoded))
	if !inURL && (len(word) < minData || bytes.ContainsAny(word, "@.%~")) {
		return false
	}
	kind := "data"
	if inURL {
		if i := bytes.LastIndex(tail, []byte("data:")); i >= 0 {
			for _, known := range [...]string{"image", "audio", "video"} {
				if bytes.HasPrefix(tail[i+len("data:"):], []byte(known)) {
					kind = known
				}
			}
			w.to = w.to[:len(w.to)-len(tail)+i]
		}
	}
	w.to = append(append(append(w.to, '['), kind...), ' ')
	if size := len(word) / 4 * 3; size < 1000 {
		w.to = append(strconv.AppendInt(w.to, int64(size), 10), " B"...)
	} else {
		w.to = append(strconv.AppendInt(w.to, int64(size+500)/1000, 10), " kB"...)
	}
	if w.end == cut && w.at == len(w.text) {
		w.to = append(w.to, " or more"...)
	}
	w.replace("]")
	return true
}

// rest is for a word that nothing before it speaks of.
func (w *words) rest(word []byte) {
	if i := keyIn(word); i >= 0 {
		w.to = appendWithoutEmail(w.to, word[:i])
		w.replace(aKey)
		return
	}
	if isRandom(word) {
		w.replace(aSecret)
		return
	}
	w.to = appendWithoutEmail(w.to, word)
}
