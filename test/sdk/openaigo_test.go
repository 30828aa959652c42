package sdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
)

func (s *session) openaiGo() *openai.Client {
	all := []option.RequestOption{
		option.WithBaseURL(s.BaseURL), option.WithAPIKey(s.Key), option.WithMaxRetries(s.Retries), option.WithHTTPClient(s.http),
		option.WithRequestTimeout(time.Duration(s.TimeoutMS) * time.Millisecond),
	}
	for name, value := range s.Header {
		all = append(all, option.WithHeader(name, value))
	}
	client := openai.NewClient(all...)
	return &client
}

func describedByOpenAIGo(err error) map[string]any {
	if refused := (*openai.Error)(nil); errors.As(err, &refused) {
		return map[string]any{
			"class": fmt.Sprintf("%T", refused), "status": refused.StatusCode, "code": refused.Code, "type": refused.Type,
			"param": refused.Param, "message": refused.Message, "raw": refused.RawJSON(),
		}
	}
	if broken := (*ssestream.StreamError)(nil); errors.As(err, &broken) {
		return map[string]any{"class": fmt.Sprintf("%T", broken), "message": broken.Message, "data": string(broken.Event.Data)}
	}
	return described(err)
}

func (s *session) messages() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:    s.Model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage(instructions), openai.UserMessage(s.Prompt)},
	}
}

var openaiGoTools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
	Name: weatherName, Description: openai.String(weatherDescription), Parameters: weatherParameters,
})}

// openaiGoCalls are what the scenarios name, as calls in node/openai.mjs.
var openaiGoCalls = map[string]func(*session) error{
	"chat": func(s *session) error { return s.complete(s.messages()) },
	"chatWithoutMessages": func(s *session) error {
		return s.complete(openai.ChatCompletionNewParams{Model: s.Model})
	},
	"image": func(s *session) error {
		return s.complete(openai.ChatCompletionNewParams{Model: s.Model, Messages: []openai.ChatCompletionMessageParamUnion{
			openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
				openai.TextContentPart(s.Prompt),
				openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: pictureURL()}),
			}),
		}})
	},
	"structured": func(s *session) error {
		params := s.messages()
		params.ResponseFormat.OfJSONSchema = &openai.ResponseFormatJSONSchemaParam{JSONSchema: openai.ResponseFormatJSONSchemaJSONSchemaParam{
			Name: "city", Strict: openai.Bool(true), Schema: citySchema,
		}}
		a, err := s.openaiGo().Chat.Completions.New(context.Background(), params)
		if err := s.whole(a, err); err != nil {
			return err
		}
		return json.Unmarshal([]byte(a.Choices[0].Message.Content), &s.saw.Parsed)
	},
	"tools": func(s *session) error {
		params := s.messages()
		params.Tools = openaiGoTools
		asked, err := s.openaiGo().Chat.Completions.New(context.Background(), params)
		if err != nil {
			return err
		}
		s.saw.Chunks = []any{json.RawMessage(asked.RawJSON())}
		message := asked.Choices[0].Message
		params.Messages = append(params.Messages, message.ToParam(), openai.ToolMessage("21 degrees", message.ToolCalls[0].ID))
		return s.complete(params)
	},
	"models": func(s *session) error {
		pages := s.openaiGo().Models.ListAutoPaging(context.Background())
		for pages.Next() {
			s.saw.Chunks = append(s.saw.Chunks, json.RawMessage(pages.Current().RawJSON()))
		}
		if err := pages.Err(); err != nil {
			return err
		}
		return s.whole(s.openaiGo().Models.Get(context.Background(), s.Model))
	},
	"speech": func(s *session) error {
		r, err := s.openaiGo().Audio.Speech.New(context.Background(), openai.AudioSpeechNewParams{
			Model: s.Model, Input: s.Prompt,
			Voice: openai.AudioSpeechNewParamsVoiceUnion{OfString: openai.String("alloy")},
		})
		if err != nil {
			return err
		}
		defer r.Body.Close()
		s.saw.Data, err = io.ReadAll(r.Body)
		return err
	},
	"transcription": func(s *session) error {
		file := openai.File(bytes.NewReader(sound()), "hello.wav", "audio/wav")
		return s.whole(s.openaiGo().Audio.Transcriptions.New(context.Background(), openai.AudioTranscriptionNewParams{Model: s.Model, File: file}))
	},
	"files": func(s *session) error {
		_, err := s.openaiGo().Files.List(context.Background(), openai.FileListParams{})
		return err
	},
	"completion": func(s *session) error {
		return s.whole(s.openaiGo().Completions.New(context.Background(), s.completion()))
	},
	"streamedCompletion": func(s *session) error {
		return events(s, s.openaiGo().Completions.NewStreaming(context.Background(), s.completion()), always)
	},
	"embeddings": func(s *session) error {
		input := openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{s.Prompt, "two"}}
		return s.whole(s.openaiGo().Embeddings.New(context.Background(), openai.EmbeddingNewParams{Model: s.Model, Input: input}))
	},
	"response": func(s *session) error {
		return s.whole(s.openaiGo().Responses.New(context.Background(), s.response()))
	},

	"stream": func(s *session) error { return s.stream(s.messages()) },
	"streamWithUsage": func(s *session) error {
		params := s.messages()
		params.StreamOptions.IncludeUsage = openai.Bool(true)
		return s.stream(params)
	},
	"streamedTools": func(s *session) error {
		params := s.messages()
		params.Tools = openaiGoTools
		params.StreamOptions.IncludeUsage = openai.Bool(true)
		if err := s.stream(params); err != nil {
			return err
		}
		var together openai.ChatCompletionAccumulator
		for _, raw := range s.saw.Chunks {
			var chunk openai.ChatCompletionChunk
			if err := json.Unmarshal(raw.(json.RawMessage), &chunk); err != nil {
				return err
			}
			together.AddChunk(chunk)
		}
		s.saw.Data = together.ChatCompletion
		return nil
	},
	"streamedResponse": func(s *session) error {
		return events(s, s.openaiGo().Responses.NewStreaming(context.Background(), s.response()), always)
	},
	"abort": func(s *session) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		return events(s, s.openaiGo().Chat.Completions.NewStreaming(ctx, s.messages()), s.untilTaken(cancel))
	},
	"abortResponse": func(s *session) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		return events(s, s.openaiGo().Responses.NewStreaming(ctx, s.response()), s.untilTaken(cancel))
	},
}

func (s *session) completion() openai.CompletionNewParams {
	return openai.CompletionNewParams{
		Model:  openai.CompletionNewParamsModel(s.Model),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(s.Prompt)},
	}
}

func (s *session) response() responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: s.Model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(s.Prompt)}}
}

func (s *session) complete(params openai.ChatCompletionNewParams) error {
	return s.whole(s.openaiGo().Chat.Completions.New(context.Background(), params))
}

func (s *session) stream(params openai.ChatCompletionNewParams) error {
	return events(s, s.openaiGo().Chat.Completions.NewStreaming(context.Background(), params), always)
}

// answered is what every answer of the SDK can do.
type answered interface{ RawJSON() string }

// whole notes an answer that comes at once.
func (s *session) whole(a answered, err error) error {
	if err == nil {
		s.saw.Data = json.RawMessage(a.RawJSON())
	}
	return err
}

// events reads a stream while more wants it.
func events[E answered](s *session, stream *ssestream.Stream[E], more func() bool) error {
	defer stream.Close()
	for stream.Next() {
		s.saw.Chunks = append(s.saw.Chunks, json.RawMessage(stream.Current().RawJSON()))
		if !more() {
			break
		}
	}
	return stream.Err()
}
