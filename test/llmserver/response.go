package llmserver

import "net/http"

// responseUsage is the usage of the Responses API, which has other names for the same.
type responseUsage struct {
	Input        int `json:"input_tokens"`
	InputDetails struct {
		Cached int `json:"cached_tokens"`
	} `json:"input_tokens_details"`
	Output        int `json:"output_tokens"`
	OutputDetails struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	Total int `json:"total_tokens"`
}

type responseBody struct {
	ID        string         `json:"id"`
	Object    string         `json:"object"`
	CreatedAt int            `json:"created_at"`
	Status    string         `json:"status"`
	Error     *apiError      `json:"error"`
	Model     string         `json:"model"`
	Output    []outputItem   `json:"output"`
	Usage     *responseUsage `json:"usage"`
}

type outputItem struct {
	ID      string       `json:"id"`
	Type    string       `json:"type"`
	Status  string       `json:"status"`
	Role    string       `json:"role"`
	Content []outputPart `json:"content"`
}

type outputPart struct {
	Type        string   `json:"type"`
	Text        string   `json:"text"`
	Annotations []string `json:"annotations"`
}

// response answers POST …/responses.
func response(q *question) answer {
	var (
		model        string
		stream       bool
		options      map[string]any
		instructions string
	)
	if refused := q.read(map[string]any{
		"model": &model, "stream": &stream, "stream_options": &options, "instructions": &instructions,
	}); refused != nil {
		return *refused
	}
	if _, ok := options["include_usage"]; ok { // usage always comes with this API
		return failure(http.StatusBadRequest, "Unknown parameter: 'stream_options.include_usage'.", "unknown_parameter")
	}
	asked := text(q.fields["input"])
	content := q.words(model, asked)
	used := &responseUsage{Input: countWords(asked) + countWords(instructions), Output: countWords(content) + q.reasoning}
	used.InputDetails.Cached = q.known(countWords(instructions), used.Input)
	used.OutputDetails.Reasoning = q.reasoning
	used.Total = used.Input + used.Output
	cost := bill{
		Tokens: Tokens{1, used.Input, used.Output, used.InputDetails.Cached, q.reasoning},
		silent: q.usage == UsageNone,
	}
	if cost.silent {
		used = nil
	}

	name := id("", q.host, model, asked)
	part := outputPart{Type: "output_text", Text: content, Annotations: []string{}}
	item := outputItem{ID: "msg_" + name, Type: "message", Status: "completed", Role: "assistant", Content: []outputPart{part}}
	body := responseBody{
		ID: "resp_" + name, Object: "response", CreatedAt: created, Status: "completed", Model: model,
		Output: []outputItem{item}, Usage: used,
	}
	out := jsonAnswer(body)
	if stream {
		out = streamResponse(body, item, part)
		cost.first, cost.report = responsePrelude, len(out.events)-1
	}
	out.bill = cost
	return out
}

// responsePrelude is how many events come before the first word.
const responsePrelude = 4

// streamResponse tells the same in events.
func streamResponse(body responseBody, item outputItem, part outputPart) answer {
	a := answer{status: http.StatusOK, contentType: eventStream, header: noCache}
	say := func(kind string, fields map[string]any) {
		fields["type"], fields["sequence_number"] = kind, len(a.events)
		a.events = append(a.events, event(kind, fields))
	}
	begun := body
	begun.Status, begun.Output, begun.Usage = "in_progress", []outputItem{}, nil
	begunItem := item
	begunItem.Status, begunItem.Content = "in_progress", []outputPart{}
	begunPart := part
	begunPart.Text = ""
	at := func(further map[string]any) map[string]any {
		all := map[string]any{"item_id": item.ID, "output_index": 0, "content_index": 0}
		for k, v := range further {
			all[k] = v
		}
		return all
	}

	say("response.created", map[string]any{"response": begun})
	say("response.in_progress", map[string]any{"response": begun})
	say("response.output_item.added", map[string]any{"output_index": 0, "item": begunItem})
	say("response.content_part.added", at(map[string]any{"part": begunPart}))
	for _, word := range words(part.Text) {
		say("response.output_text.delta", at(map[string]any{"delta": word}))
	}
	say("response.output_text.done", at(map[string]any{"text": part.Text}))
	say("response.content_part.done", at(map[string]any{"part": part}))
	say("response.output_item.done", map[string]any{"output_index": 0, "item": item})
	say("response.completed", map[string]any{"response": body})
	return a
}
