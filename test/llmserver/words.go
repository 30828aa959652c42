package llmserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// quoted is how much of the user's words an answer repeats, in runes.
const quoted = 200

// words is what a model says: who it is and what it heard, or as many words as a fault wants.
func (q *question) words(model, asked string) string {
	if q.chunks > 0 {
		all := make([]string, q.chunks)
		for i := range all {
			all[i] = fmt.Sprintf("word%d", i+1)
		}
		return strings.Join(all, " ")
	}
	if runes := []rune(asked); len(runes) > quoted {
		asked = string(runes[:quoted])
	}
	return fmt.Sprintf("I am %s at %s. You said: %s", model, q.host, asked)
}

// text is the text of a content or an input: a string, or a list of strings, or of parts or messages with text in them.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		var all []string
		for _, one := range list {
			all = append(all, text(one))
		}
		return strings.Join(all, " ")
	}
	var part struct {
		Text    string          `json:"text"`
		Content json.RawMessage `json:"content"`
	}
	if json.Unmarshal(raw, &part) != nil {
		return ""
	}
	if part.Text == "" && part.Content != nil {
		return text(part.Content)
	}
	return part.Text
}

// words cuts a text into words that keep the space before them, so that together they are the text.
func words(s string) []string {
	var all []string
	for s != "" {
		end := len(s)
		if i := strings.IndexByte(s[1:], ' '); i >= 0 {
			end = i + 1
		}
		all = append(all, s[:end])
		s = s[end:]
	}
	return all
}

// countWords counts tokens: for this provider, a token is a word.
func countWords(s string) int { return len(strings.Fields(s)) }

// quote is a text in JSON, in which <, > and & stay as they are, for people who look at it.
func quote(s string) json.RawMessage { return encode(s) }

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own types
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
