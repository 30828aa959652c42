package sdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sashabaranov/go-openai"
)

func (s *session) goOpenAI() *openai.Client {
	config := openai.DefaultConfig(s.Key)
	config.BaseURL, config.HTTPClient = s.BaseURL, s.http
	return openai.NewClientWithConfig(config)
}

func describedByGoOpenAI(err error) map[string]any {
	if refused := (*openai.APIError)(nil); errors.As(err, &refused) {
		return map[string]any{
			"class": fmt.Sprintf("%T", refused), "status": refused.HTTPStatusCode, "code": refused.Code, "type": refused.Type,
			"param": refused.Param, "message": refused.Message,
		}
	}
	if refused := (*openai.RequestError)(nil); errors.As(err, &refused) {
		return map[string]any{"class": fmt.Sprintf("%T", refused), "status": refused.HTTPStatusCode, "body": string(refused.Body)}
	}
	return described(err)
}

func (s *session) request() openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{Model: s.Model, Messages: []openai.ChatCompletionMessage{
		{Role: openai.ChatMessageRoleSystem, Content: instructions}, {Role: openai.ChatMessageRoleUser, Content: s.Prompt},
	}}
}

var goOpenAITools = []openai.Tool{{Type: openai.ToolTypeFunction, Function: &openai.FunctionDefinition{
	Name: weatherName, Description: weatherDescription, Parameters: weatherParameters,
}}}

// goOpenAICalls are what the scenarios name, as calls in node/openai.mjs.
var goOpenAICalls = map[string]func(*session) error{
	"chat": func(s *session) error { return s.create(s.request()) },
	"chatWithoutMessages": func(s *session) error {
		return s.create(openai.ChatCompletionRequest{Model: s.Model, Messages: []openai.ChatCompletionMessage{}})
	},
	"image": func(s *session) error {
		request := s.request()
		request.Messages = []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, MultiContent: []openai.ChatMessagePart{
			{Type: openai.ChatMessagePartTypeText, Text: s.Prompt},
			{Type: openai.ChatMessagePartTypeImageURL, ImageURL: &openai.ChatMessageImageURL{URL: pictureURL()}},
		}}}
		return s.create(request)
	},
	"structured": func(s *session) error {
		schema, err := json.Marshal(citySchema)
		if err != nil {
			return err
		}
		request := s.request()
		request.ResponseFormat = &openai.ChatCompletionResponseFormat{
			Type:       openai.ChatCompletionResponseFormatTypeJSONSchema,
			JSONSchema: &openai.ChatCompletionResponseFormatJSONSchema{Name: "city", Strict: true, Schema: json.RawMessage(schema)},
		}
		a, err := s.goOpenAI().CreateChatCompletion(context.Background(), request)
		if err != nil {
			return err
		}
		s.saw.Data = a
		return json.Unmarshal([]byte(a.Choices[0].Message.Content), &s.saw.Parsed)
	},
	"tools": func(s *session) error {
		request := s.request()
		request.Tools = goOpenAITools
		asked, err := s.goOpenAI().CreateChatCompletion(context.Background(), request)
		if err != nil {
			return err
		}
		s.saw.Chunks = []any{asked}
		message := asked.Choices[0].Message
		request.Messages = append(request.Messages, message, openai.ChatCompletionMessage{
			Role: openai.ChatMessageRoleTool, Content: "21 degrees", ToolCallID: message.ToolCalls[0].ID,
		})
		return s.create(request)
	},
	"models": func(s *session) error {
		list, err := s.goOpenAI().ListModels(context.Background())
		if err != nil {
			return err
		}
		s.saw.Chunks = []any{list}
		return s.noted(s.goOpenAI().GetModel(context.Background(), s.Model))
	},
	"speech": func(s *session) error {
		r, err := s.goOpenAI().CreateSpeech(context.Background(), openai.CreateSpeechRequest{
			Model: openai.SpeechModel(s.Model), Input: s.Prompt, Voice: openai.VoiceAlloy,
		})
		if err != nil {
			return err
		}
		defer r.Close()
		s.saw.Data, err = io.ReadAll(r)
		return err
	},
	"transcription": func(s *session) error {
		return s.noted(s.goOpenAI().CreateTranscription(context.Background(), openai.AudioRequest{
			Model: s.Model, Reader: bytes.NewReader(sound()), FilePath: "hello.wav",
		}))
	},
	"files": func(s *session) error { return s.noted(s.goOpenAI().ListFiles(context.Background())) },
	"completion": func(s *session) error {
		return s.noted(s.goOpenAI().CreateCompletion(context.Background(), openai.CompletionRequest{Model: s.Model, Prompt: s.Prompt}))
	},
	"streamedCompletion": func(s *session) error {
		stream, err := s.goOpenAI().CreateCompletionStream(context.Background(), openai.CompletionRequest{Model: s.Model, Prompt: s.Prompt})
		if err != nil {
			return err
		}
		defer stream.Close()
		return received(s, stream.Recv, always)
	},
	"embeddings": func(s *session) error {
		return s.noted(s.goOpenAI().CreateEmbeddings(context.Background(), openai.EmbeddingRequestStrings{
			Model: openai.EmbeddingModel(s.Model), Input: []string{s.Prompt, "two"},
		}))
	},
	"response": func(s *session) error {
		return s.noted(s.goOpenAI().CreateResponse(context.Background(), openai.CreateResponseRequest{Model: s.Model, Input: s.Prompt}))
	},

	"stream": func(s *session) error { return s.chunks(context.Background(), s.request(), always) },
	"streamWithUsage": func(s *session) error {
		request := s.request()
		request.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
		return s.chunks(context.Background(), request, always)
	},
	"streamedTools": func(s *session) error {
		request := s.request()
		request.Tools, request.StreamOptions = goOpenAITools, &openai.StreamOptions{IncludeUsage: true}
		return s.chunks(context.Background(), request, always)
	},
	"streamedResponse": func(s *session) error {
		return s.responseEvents(context.Background(), always)
	},
	"abort": func(s *session) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		return s.chunks(ctx, s.request(), s.untilTaken(cancel))
	},
	"abortResponse": func(s *session) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		return s.responseEvents(ctx, s.untilTaken(cancel))
	},
}

// noted notes an answer that comes at once.
func (s *session) noted(a any, err error) error {
	if err == nil {
		s.saw.Data = a
	}
	return err
}

func (s *session) create(request openai.ChatCompletionRequest) error {
	ctx, cancel := s.timeout()
	defer cancel()
	return s.noted(s.goOpenAI().CreateChatCompletion(ctx, request))
}

func (s *session) chunks(ctx context.Context, request openai.ChatCompletionRequest, more func() bool) error {
	limited, cancel := s.timeout()
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	stream, err := s.goOpenAI().CreateChatCompletionStream(limited, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	return received(s, stream.Recv, more)
}

func (s *session) responseEvents(ctx context.Context, more func() bool) error {
	stream, err := s.goOpenAI().CreateResponseStream(ctx, openai.CreateResponseRequest{Model: s.Model, Input: s.Prompt})
	if err != nil {
		return err
	}
	defer stream.Close()
	return received(s, stream.Recv, more)
}

// received reads a stream while more wants it.
func received[E any](s *session, next func() (E, error), more func() bool) error {
	for {
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.saw.Chunks = append(s.saw.Chunks, chunk)
		if !more() {
			return nil
		}
	}
}
