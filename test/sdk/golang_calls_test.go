package sdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
)

func (s *session) chat() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:    s.Model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("Answer briefly."), openai.UserMessage(s.Prompt)},
	}
}

var weather = openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
	Name: "get_weather", Description: openai.String("The weather of a city"),
	Parameters: openai.FunctionParameters{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}},
})

// calls are what the scenarios name, as in node/saw.mjs.
var calls = map[string]func(*session) error{
	"chat":                func(s *session) error { return s.complete(s.chat()) },
	"chatWithoutMessages": func(s *session) error { return s.complete(openai.ChatCompletionNewParams{Model: s.Model}) },
	"structured":          structuredOutput,
	"tools":               toolsInTwoSteps,
	"models":              listModels,
	"speech":              speech,
	"stream":              func(s *session) error { return s.stream(context.Background(), s.chat(), always) },
	"streamWithUsage": func(s *session) error {
		params := s.chat()
		params.StreamOptions.IncludeUsage = openai.Bool(true)
		return s.stream(context.Background(), params, always)
	},
	"streamedTools": streamedTools,
	"abort": func(s *session) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		return s.stream(ctx, s.chat(), func() bool {
			if len(s.saw.Chunks) < s.Take {
				return true
			}
			s.saw.EndedAt = time.Now().UnixMilli()
			cancel()
			return false
		})
	},
	"completion": func(s *session) error {
		params := openai.CompletionNewParams{Model: openai.CompletionNewParamsModel(s.Model), Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(s.Prompt)}}
		_, err := whole(s, func(o ...option.RequestOption) (*openai.Completion, error) {
			return s.client.Completions.New(context.Background(), params, o...)
		})
		return err
	},
	"embeddings": func(s *session) error {
		params := openai.EmbeddingNewParams{Model: s.Model, Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{s.Prompt, "two"}}}
		_, err := whole(s, func(o ...option.RequestOption) (*openai.CreateEmbeddingResponse, error) {
			return s.client.Embeddings.New(context.Background(), params, o...)
		})
		return err
	},
	"response": func(s *session) error {
		_, err := whole(s, func(o ...option.RequestOption) (*responses.Response, error) {
			return s.client.Responses.New(context.Background(), s.response(), o...)
		})
		return err
	},
	"streamedResponse": func(s *session) error {
		return events(s, func(o ...option.RequestOption) *ssestream.Stream[responses.ResponseStreamEventUnion] {
			return s.client.Responses.NewStreaming(context.Background(), s.response(), o...)
		}, always)
	},
	"transcription": func(s *session) error {
		sound := openai.File(bytes.NewReader(bytes.Repeat([]byte{7}, 100_000)), "hello.wav", "audio/wav")
		params := openai.AudioTranscriptionNewParams{Model: s.Model, File: sound}
		_, err := whole(s, func(o ...option.RequestOption) (*openai.AudioTranscriptionNewResponseUnion, error) {
			return s.client.Audio.Transcriptions.New(context.Background(), params, o...)
		})
		return err
	},
	"files": func(s *session) error {
		_, err := s.client.Files.List(context.Background(), openai.FileListParams{})
		return err
	},
}

func (s *session) response() responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: s.Model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(s.Prompt)}}
}

func (s *session) complete(params openai.ChatCompletionNewParams) error {
	_, err := whole(s, func(o ...option.RequestOption) (*openai.ChatCompletion, error) {
		return s.client.Chat.Completions.New(context.Background(), params, o...)
	})
	return err
}

func (s *session) stream(ctx context.Context, params openai.ChatCompletionNewParams, more func() bool) error {
	return events(s, func(o ...option.RequestOption) *ssestream.Stream[openai.ChatCompletionChunk] {
		return s.client.Chat.Completions.NewStreaming(ctx, params, o...)
	}, more)
}

func structuredOutput(s *session) error {
	params := s.chat()
	params.ResponseFormat.OfJSONSchema = &openai.ResponseFormatJSONSchemaParam{JSONSchema: openai.ResponseFormatJSONSchemaJSONSchemaParam{
		Name: "city", Strict: openai.Bool(true),
		Schema: map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}, "required": []string{"city"}, "additionalProperties": false},
	}}
	a, err := whole(s, func(o ...option.RequestOption) (*openai.ChatCompletion, error) {
		return s.client.Chat.Completions.New(context.Background(), params, o...)
	})
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(a.Choices[0].Message.Content), &s.saw.Parsed)
}

func toolsInTwoSteps(s *session) error {
	params := s.chat()
	params.Tools = []openai.ChatCompletionToolUnionParam{weather}
	asked, err := s.client.Chat.Completions.New(context.Background(), params)
	if err != nil {
		return err
	}
	s.saw.Chunks = []json.RawMessage{json.RawMessage(asked.RawJSON())}
	message := asked.Choices[0].Message
	params.Messages = append(params.Messages, message.ToParam(), openai.ToolMessage("21 degrees", message.ToolCalls[0].ID))
	return s.complete(params)
}

func streamedTools(s *session) error {
	params := s.chat()
	params.Tools = []openai.ChatCompletionToolUnionParam{weather}
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	if err := s.stream(context.Background(), params, always); err != nil {
		return err
	}
	var together openai.ChatCompletionAccumulator
	for _, raw := range s.saw.Chunks {
		var chunk openai.ChatCompletionChunk
		if err := json.Unmarshal(raw, &chunk); err != nil {
			return err
		}
		together.AddChunk(chunk)
	}
	s.saw.Data = together.ChatCompletion
	return nil
}

func listModels(s *session) error {
	pages := s.client.Models.ListAutoPaging(context.Background())
	for pages.Next() {
		s.saw.Chunks = append(s.saw.Chunks, json.RawMessage(pages.Current().RawJSON()))
	}
	if err := pages.Err(); err != nil {
		return err
	}
	_, err := whole(s, func(o ...option.RequestOption) (*openai.Model, error) {
		return s.client.Models.Get(context.Background(), s.Model, o...)
	})
	return err
}

func speech(s *session) error {
	r, err := s.client.Audio.Speech.New(context.Background(), openai.AudioSpeechNewParams{
		Model: s.Model, Input: s.Prompt,
		Voice: openai.AudioSpeechNewParamsVoiceUnion{OfString: openai.String("alloy")},
	})
	if err != nil {
		return err
	}
	defer r.Body.Close()
	s.saw.head(r)
	s.saw.Data, err = io.ReadAll(r.Body)
	return err
}
