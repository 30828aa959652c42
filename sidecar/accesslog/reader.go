package accesslog

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// reader makes of a body what people would read of it: of events, the text that their deltas make together, as what is to be recognised may
// be spread over several; of anything else, itself without the escapes of JSON's strings.
type reader struct {
	lanes  []lane
	order  [][]byte
	key    []byte
	value  []byte
	which  []byte
	missed bool // there were more lanes than are kept
}

// lane is one of the texts that come at the same time: a choice's, its reasoning, the arguments of a call.
type lane struct {
	name, text []byte
}

// maxLanes is how many texts of one answer are kept.
const maxLanes = 16

// pieces gives the texts in the order in which they began. They are good until the next call.
func (r *reader) pieces(raw []byte) [][]byte {
	r.order, r.missed = r.order[:0], false
	if !isEvents(raw) {
		r.value = r.value[:0]
		for i := 0; i < len(raw); {
			r.value, i = unescape(r.value, raw, i)
		}
		return append(r.order, r.value)
	}
	r.lanes = r.lanes[:0]
	for line := range bytes.Lines(raw) {
		if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			r.event(data)
		}
	}
	for _, l := range r.lanes {
		r.order = append(r.order, l.text)
	}
	return r.order
}

// isEvents tells whether a body is server-sent events: whether its first line that says something is one of theirs.
func isEvents(raw []byte) bool {
	raw = bytes.TrimLeft(bytes.TrimPrefix(raw, []byte("\uFEFF")), "\r\n")
	for _, field := range [...]string{"data:", "event:", "id:", "retry:", ":"} {
		if bytes.HasPrefix(raw, []byte(field)) {
			return true
		}
	}
	return false
}

// event adds the text in one event to its lanes. Data that is not JSON is text as it is.
func (r *reader) event(data []byte) {
	data = bytes.TrimLeft(data, " ")
	switch trimmed := bytes.TrimRight(data, "\r\n"); {
	case string(trimmed) == "[DONE]":
		return
	case len(trimmed) == 0 || trimmed[0] != '{':
		r.add("", trimmed)
		return
	}
	// The events of Responses repeat at the end what their deltas have said.
	deltas := bytes.Contains(data, []byte(`"response.`))
	r.which = appendIndexes(r.which[:0], data)
	for i := 0; i < len(data); {
		if data[i] != '"' {
			i++
			continue
		}
		r.value, i = appendString(r.value[:0], data, i+1)
		if after := bytes.TrimLeft(data[i:], " \t"); len(after) > 0 && after[0] == ':' {
			r.key = append(r.key[:0], r.value...)
			continue
		}
		if isText(r.key) && (!deltas || string(r.key) == "delta") {
			r.add(string(r.key), r.value)
		}
	}
}

// isText tells whether the value of a key is what the model said.
func isText(key []byte) bool {
	switch string(key) {
	case "content", "text", "delta", "reasoning_content", "reasoning", "thinking", "refusal", "arguments", "partial_json", "transcript", "message":
		return true
	}
	return false
}

func (r *reader) add(key string, text []byte) {
	for i := range r.lanes {
		l := &r.lanes[i]
		if name, ok := bytes.CutPrefix(l.name, r.which); ok && string(name) == key {
			l.text = append(l.text, text...)
			return
		}
	}
	if len(r.lanes) == maxLanes {
		r.missed = true
		return
	}
	r.lanes = append(r.lanes, lane{append(bytes.Clone(r.which), key...), bytes.Clone(text)})
}

// appendIndexes gives the numbers of choices, calls and parts that an event is of.
func appendIndexes(b, data []byte) []byte {
	for _, name := range [...]string{`index":`, `output_index":`} {
		for rest := data; ; {
			_, after, found := bytes.Cut(rest, []byte(name))
			if !found {
				break
			}
			rest = after
			for i := 0; i < min(len(after), 8) && (after[i] == ' ' || after[i] >= '0' && after[i] <= '9'); i++ {
				b = append(b, after[i])
			}
			b = append(b, '.')
		}
	}
	return b
}

// appendString appends a JSON string that begins at i, without its escapes, and gives where it ends.
func appendString(b, data []byte, i int) ([]byte, int) {
	for i < len(data) && data[i] != '"' {
		b, i = unescape(b, data, i)
	}
	return b, min(i+1, len(data))
}

// unescape appends the next character, and gives where the one after it is. A string in a string has a letter by its number behind several
// backslashes: it is that letter all the same. An escape that is cut off is nothing.
func unescape(b, data []byte, i int) ([]byte, int) {
	if data[i] != '\\' {
		return append(b, data[i]), i + 1
	}
	slashes := i
	for slashes < len(data) && data[slashes] == '\\' {
		slashes++
	}
	if slashes == len(data) {
		return appendTimes(b, '\\', (slashes-i)/2), len(data)
	}
	if data[slashes] == 'u' && (slashes-i)%2 == 1 || isNumbered(data[slashes:]) {
		return unescapeNumber(b, data, slashes)
	}
	b = appendTimes(b, '\\', (slashes-i)/2)
	if (slashes-i)%2 == 0 {
		return b, slashes
	}
	switch c := data[slashes]; c {
	case 'n', 'r', 't', 'b', 'f':
		return append(b, "\n\r\t  "[bytes.IndexByte([]byte("nrtbf"), c)]), slashes + 1
	default:
		return append(b, c), slashes + 1
	}
}

func appendTimes(b []byte, c byte, times int) []byte {
	for range times {
		b = append(b, c)
	}
	return b
}

// isNumbered tells whether data is u and four hexadecimal digits.
func isNumbered(data []byte) bool {
	if len(data) < 5 || data[0] != 'u' {
		return false
	}
	_, err := strconv.ParseUint(string(data[1:5]), 16, 16)
	return err == nil
}

// unescapeNumber appends the character whose number follows the u at i.
func unescapeNumber(b, data []byte, i int) ([]byte, int) {
	if len(data) < i+5 {
		return b, len(data)
	}
	number := func(at int) rune {
		n, err := strconv.ParseUint(string(data[at:at+4]), 16, 16)
		if err != nil {
			return utf8.RuneError
		}
		return rune(n)
	}
	c := number(i + 1)
	if utf16.IsSurrogate(c) && len(data) >= i+11 && data[i+5] == '\\' && data[i+6] == 'u' {
		return utf8.AppendRune(b, utf16.DecodeRune(c, number(i+7))), i + 11
	}
	return utf8.AppendRune(b, c), i + 5
}
