package metrics

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLabel is the longest value of a label, in bytes: that of a model in an LLMProvider.
const maxLabel = 256

// clean makes a text that can be shown: without what is no UTF-8, and cut. It gives a text of that form as it is.
func clean(value string) string {
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "�")
	}
	if len(value) <= maxLabel {
		return value
	}
	n := maxLabel
	for !utf8.RuneStart(value[n]) {
		n--
	}
	return value[:n]
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// quote writes a value as the text form has it, which knows three escapes and no others.
func quote(value string) string { return `"` + escapes.Replace(clean(value)) + `"` }

// addLabel adds one to others; none where the value is empty, which means the same.
func addLabel(b *strings.Builder, name, value string) {
	if value == "" {
		return
	}
	if b.Len() > 0 {
		b.WriteByte(',')
	}
	b.WriteString(name)
	b.WriteByte('=')
	b.WriteString(quote(value))
}

// labelsOf puts together names and values.
func labelsOf(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		addLabel(&b, pairs[i], pairs[i+1])
	}
	return b.String()
}

// isModel tells whether a text that an app or a provider sent can be a model's name.
func isModel(name string) bool {
	return len(name) <= maxModel && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}
