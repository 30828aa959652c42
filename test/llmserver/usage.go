package llmserver

import (
	"errors"
	"net/http"
)

// UsageShape says where a stream tells what it cost. The zero value is OpenAI's way: in a chunk of its own with empty
// choices, and only if stream_options.include_usage asks for it. The other ways ask nobody.
type UsageShape string

// The ways of other providers.
const (
	UsageOwn     UsageShape = "own"     // in a chunk of its own, also unasked
	UsageLast    UsageShape = "last"    // in the last chunk with a choice, which says why it ends
	UsageRunning UsageShape = "running" // in each chunk, as the total so far
	UsageNone    UsageShape = "none"    // nowhere, and in no whole answer either
)

func parseUsageShape(text string) (UsageShape, error) {
	switch u := UsageShape(text); u {
	case UsageOwn, UsageLast, UsageRunning, UsageNone:
		return u, nil
	}
	return "", errors.New("the usage is own, last, running or none")
}

// shape is the part of a fault that changes what is answered rather than how it is sent.
type shape struct {
	chunks              int // how many words to say; 0 means what there is to say
	usage               UsageShape
	cached              int
	reasoning           int
	refuseStreamOptions int
}

func (f Fault) shape() shape {
	return shape{f.Chunks, f.Usage, f.Cached, f.Reasoning, f.RefuseStreamOptions}
}

// known is how many of the input's tokens were known already: as many as the fault says, else n.
func (s shape) known(n, input int) int {
	if s.cached > 0 {
		n = s.cached
	}
	return min(n, input)
}

// charged is an answer without a stream, with its usage unless the fault keeps that back.
func (q *question) charged(body map[string]any, tokens Tokens, usage any) answer {
	silent := q.usage == UsageNone
	if !silent {
		body["usage"] = usage
	}
	a := jsonAnswer(body)
	a.bill = bill{Tokens: tokens, silent: silent}
	return a
}

// refusedStreamOptions is how a provider that knows no stream_options refuses them.
func refusedStreamOptions(status int) answer {
	if status != http.StatusUnprocessableEntity {
		a := failure(status, "Unrecognized request argument supplied: stream_options", "unknown_parameter")
		return a
	}
	a := jsonAnswer(map[string]any{
		"object": "error", "type": "invalid_request_error", "param": nil, "code": nil,
		"message": map[string]any{"detail": []any{map[string]any{
			"type": "extra_forbidden", "loc": []string{"body", "stream_options"}, "msg": "Extra inputs are not permitted",
		}}},
	})
	a.status = status
	return a
}
