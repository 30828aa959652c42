package llmserver

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
)

type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int    `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// models answers GET …/models. The server answers to every name of a model; it lists some.
func models() answer {
	var list []model
	for _, id := range []string{"qwen-1.8b-chat", "qwen-turbo", "moonshot-v1-8k", "gpt-4o-mini"} {
		list = append(list, model{ID: id, Object: "model", Created: created, OwnedBy: "llmserver"})
	}
	return jsonAnswer(map[string]any{"object": "list", "data": list})
}

// embeddings answers POST …/embeddings, with floats or, as the SDKs ask for, in base64.
func embeddings(q *question) answer {
	if _, ok := q.fields["stream_options"]; ok {
		return failure(http.StatusBadRequest, "Unknown parameter: 'stream_options'.", "unknown_parameter")
	}
	var model, format string
	if refused := q.read(map[string]any{"model": &model, "encoding_format": &format}); refused != nil {
		return *refused
	}
	var inputs []json.RawMessage
	if json.Unmarshal(q.fields["input"], &inputs) != nil {
		inputs = []json.RawMessage{q.fields["input"]}
	}
	var data []any
	tokens := 0
	for i, input := range inputs {
		words := text(input)
		tokens += countWords(words)
		data = append(data, map[string]any{"object": "embedding", "index": i, "embedding": embedding(words, format)})
	}
	return q.charged(map[string]any{"object": "list", "model": model, "data": data},
		Tokens{Answers: 1, Input: tokens}, map[string]int{"prompt_tokens": tokens, "total_tokens": tokens})
}

// embedding is eight numbers that depend on the text.
func embedding(text, format string) any {
	vector := make([]float32, 8)
	for i, r := range text {
		vector[i%len(vector)] += float32(r%64+1) / 128 // exact in binary, so the same in both forms
	}
	if format != "base64" {
		return vector
	}
	var raw []byte
	for _, v := range vector {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func moderation(q *question) answer {
	model := "omni-moderation-latest"
	if refused := q.field("model", &model); refused != nil {
		return *refused
	}
	return jsonAnswer(map[string]any{
		"id": id("modr-", text(q.fields["input"])), "model": model,
		"results": []any{map[string]any{
			"flagged":         false,
			"categories":      map[string]bool{"violence": false},
			"category_scores": map[string]float64{"violence": 0},
		}},
	})
}

// rerank answers POST …/rerank: the documents in their own order.
func rerank(q *question) answer {
	var model string
	var documents []json.RawMessage
	if refused := q.read(map[string]any{"model": &model, "documents": &documents}); refused != nil {
		return *refused
	}
	var results []any
	tokens := countWords(text(q.fields["query"]))
	for i, d := range documents {
		tokens += countWords(text(d))
		results = append(results, map[string]any{"index": i, "relevance_score": 1 / float64(i+1)})
	}
	return q.charged(map[string]any{"id": id("rerank-", model), "model": model, "results": results},
		Tokens{Answers: 1, Input: tokens}, map[string]int{"total_tokens": tokens})
}

func image(q *question) answer {
	return q.drawn(text(q.fields["prompt"]))
}

// drawn is an image, which costs ten tokens.
func (q *question) drawn(prompt string) answer {
	tokens := Tokens{Answers: 1, Input: countWords(prompt), Output: 10}
	return q.charged(map[string]any{
		"created": created,
		"data":    []any{map[string]string{"url": "https://" + q.host + "/images/" + id("", prompt) + ".png"}},
	}, tokens, map[string]int{
		"input_tokens": tokens.Input, "output_tokens": tokens.Output, "total_tokens": tokens.Input + tokens.Output,
	})
}

// speech answers POST …/audio/speech with 4 KiB in which every byte value occurs.
func speech(*question) answer {
	sound := make([]byte, 4<<10)
	for i := range sound {
		sound[i] = byte(i)
	}
	return answer{status: http.StatusOK, contentType: "audio/mpeg", body: sound}
}
