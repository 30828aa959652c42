package llmserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type tool struct {
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

// chatBody is an answer, or a chunk of one.
type chatBody struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int      `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	// Usage is absent where nobody asked, and null in each chunk but the last where somebody did.
	Usage json.RawMessage `json:"usage,omitempty"`
}

type choice struct {
	Index        int       `json:"index"`
	Message      *said     `json:"message,omitempty"`
	Delta        *said     `json:"delta,omitempty"`
	Text         *string   `json:"text,omitempty"`
	Logprobs     *struct{} `json:"logprobs"`
	FinishReason *string   `json:"finish_reason"`
}

type said struct {
	Role      string          `json:"role,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"` // a string, or null beside tool calls
	ToolCalls []toolCall      `json:"tool_calls,omitempty"`
}

type toolCall struct {
	Index    *int         `json:"index,omitempty"` // in chunks only
	ID       string       `json:"id,omitempty"`
	Type     string       `json:"type,omitempty"`
	Function calledByTool `json:"function"`
}

type calledByTool struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

type usage struct {
	Prompt        int `json:"prompt_tokens"`
	Completion    int `json:"completion_tokens"`
	Total         int `json:"total_tokens"`
	PromptDetails struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// chat answers POST …/chat/completions.
func chat(q *question) answer {
	var (
		model    string
		messages []message
		stream   bool
		options  streamOptions
		tools    []tool
		choosing json.RawMessage
	)
	if refused := q.read(map[string]any{
		"model": &model, "messages": &messages, "stream": &stream, "stream_options": &options, "tools": &tools,
		"tool_choice": &choosing,
	}); refused != nil {
		return *refused
	}
	if refused := q.checkStreamOptions(stream); refused != nil {
		return *refused
	}
	var prompt, instructions, asked string
	for i, m := range messages {
		if m.Role == "" {
			return failure(http.StatusBadRequest, fmt.Sprintf("Missing required parameter: 'messages[%d].role'.", i), "missing_role")
		}
		words := text(m.Content)
		prompt += " " + words
		switch m.Role {
		case "system", "developer":
			instructions += " " + words
		case "user":
			asked = words
		}
	}
	out := newChat(q, model, "chatcmpl-", "chat.completion", prompt)
	out.cached(countWords(instructions)) // as if the provider had seen the instructions before

	lastRole := messages[len(messages)-1].Role
	if len(tools) > 0 && lastRole != "tool" && string(choosing) != `"none"` {
		return out.callTool(tools[0].Function.Name, stream, options)
	}
	content := q.words(model, asked)
	out.spend(countWords(content))
	if !stream {
		return out.whole(choice{Message: &said{Role: "assistant", Content: quote(content)}}, "stop")
	}
	deltas := []choice{{Delta: &said{Role: "assistant", Content: quote("")}}}
	for _, word := range words(content) {
		deltas = append(deltas, choice{Delta: &said{Content: quote(word)}})
	}
	return out.stream(deltas, choice{Delta: &said{}}, "stop", options, 1)
}

// completion answers POST …/completions, the API before chat.
func completion(q *question) answer {
	var (
		model   string
		stream  bool
		options streamOptions
	)
	if refused := q.read(map[string]any{"model": &model, "stream": &stream, "stream_options": &options}); refused != nil {
		return *refused
	}
	if refused := q.checkStreamOptions(stream); refused != nil {
		return *refused
	}
	prompt := text(q.fields["prompt"])
	out := newChat(q, model, "cmpl-", "text_completion", prompt)
	content := q.words(model, prompt)
	out.cached(0)
	out.spend(countWords(content))
	if !stream {
		return out.whole(choice{Text: &content}, "stop")
	}
	var deltas []choice
	for _, word := range words(content) {
		deltas = append(deltas, choice{Text: &word})
	}
	return out.stream(deltas, choice{Text: new("")}, "stop", options, 0)
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

func (q *question) checkStreamOptions(stream bool) *answer {
	v, ok := q.fields["stream_options"]
	if ok && q.refuseStreamOptions != 0 {
		a := refusedStreamOptions(q.refuseStreamOptions)
		return &a
	}
	if !ok || stream || string(v) == "null" {
		return nil
	}
	a := failure(http.StatusBadRequest, "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
	return &a
}

// chatAnswer is an answer in the making.
type chatAnswer struct {
	chatBody
	shape
	usage usage
}

func newChat(q *question, model, prefix, object, prompt string) *chatAnswer {
	return &chatAnswer{
		chatBody: chatBody{ID: id(prefix, q.host, model, prompt), Object: object, Created: created, Model: model},
		shape:    q.shape,
		usage:    usage{Prompt: countWords(prompt)},
	}
}

// cached and spend fill in the usage: so many tokens known already, so many words said.
func (a *chatAnswer) cached(n int) { a.usage.PromptDetails.Cached = a.known(n, a.usage.Prompt) }

func (a *chatAnswer) spend(words int) {
	a.usage.Completion, a.usage.CompletionDetails.Reasoning = words+a.reasoning, a.reasoning
}

func (a *chatAnswer) usageJSON() json.RawMessage {
	a.usage.Total = a.usage.Prompt + a.usage.Completion
	return encode(a.usage)
}

func (a *chatAnswer) tokens() Tokens {
	u := a.usage
	return Tokens{1, u.Prompt, u.Completion, u.PromptDetails.Cached, u.CompletionDetails.Reasoning}
}

func (a *chatAnswer) whole(c choice, reason string) answer {
	c.FinishReason = &reason
	a.Choices = []choice{c}
	if a.shape.usage != UsageNone {
		a.Usage = a.usageJSON()
	}
	out := jsonAnswer(a.chatBody)
	out.bill = bill{Tokens: a.tokens(), silent: a.shape.usage == UsageNone}
	return out
}

// stream makes an event of each delta, of which the one numbered first has the first word, and of what a provider adds:
// the reason for the end, the usage, [DONE].
func (a *chatAnswer) stream(deltas []choice, last choice, reason string, options streamOptions, first int) answer {
	body := a.chatBody
	if body.Object == "chat.completion" {
		body.Object = "chat.completion.chunk"
	}
	if options.IncludeUsage && a.shape.usage != UsageNone {
		body.Usage = json.RawMessage("null")
	}
	last.FinishReason = &reason
	own := a.shape.usage == UsageOwn || a.shape.usage == "" && options.IncludeUsage
	out := answer{status: http.StatusOK, contentType: eventStream, header: noCache}
	for i, delta := range append(deltas, last) {
		body.Choices = []choice{delta}
		switch {
		case a.shape.usage == UsageRunning:
			soFar := *a
			soFar.spend(min(max(i-first+1, 0), a.usage.Completion-a.reasoning))
			body.Usage = soFar.usageJSON()
		case a.shape.usage == UsageLast && i == len(deltas):
			body.Usage = a.usageJSON()
		}
		out.events = append(out.events, event("", body))
	}
	if own {
		body.Choices, body.Usage = []choice{}, a.usageJSON()
		out.events = append(out.events, event("", body))
	}
	out.bill = bill{
		Tokens: a.tokens(), first: first, report: len(out.events) - 1, running: a.shape.usage == UsageRunning,
		silent: !own && a.shape.usage != UsageRunning && a.shape.usage != UsageLast,
	}
	out.events = append(out.events, []byte("data: [DONE]\n\n"))
	return out
}

// callTool answers with a call of the tool, without arguments.
func (a *chatAnswer) callTool(name string, stream bool, options streamOptions) answer {
	a.spend(2) // the name and the arguments
	call := toolCall{ID: id("call_", name), Type: "function", Function: calledByTool{Name: name, Arguments: "{}"}}
	if !stream {
		return a.whole(choice{Message: &said{Role: "assistant", Content: json.RawMessage("null"), ToolCalls: []toolCall{call}}}, "tool_calls")
	}
	call.Index, call.Function.Arguments = new(0), ""
	deltas := []choice{{Delta: &said{Role: "assistant", Content: json.RawMessage("null"), ToolCalls: []toolCall{call}}}}
	for _, part := range []string{"{", "}"} {
		more := toolCall{Index: new(0), Function: calledByTool{Arguments: part}}
		deltas = append(deltas, choice{Delta: &said{ToolCalls: []toolCall{more}}})
	}
	return a.stream(deltas, choice{Delta: &said{}}, "tool_calls", options, 1)
}

var noCache = []string{"Cache-Control: no-cache"}

// event is one server-sent event; without a name it has a data line only.
func event(name string, v any) []byte {
	prefix := "data: "
	if name != "" {
		prefix = "event: " + name + "\ndata: "
	}
	return slices.Concat([]byte(prefix), encode(v), []byte("\n\n"))
}
