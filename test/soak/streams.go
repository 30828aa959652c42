package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const askForUsage = `,"stream_options":{"include_usage":true}`

func (a *app) stream(ctx context.Context) error {
	return a.streamFrom(ctx, a.well(), a.shape(), a.oneOf("", askForUsage), 0)
}

// bluntStream goes to a provider that refuses stream_options.
func (a *app) bluntStream(ctx context.Context) error {
	return a.streamFrom(ctx, blunt, "refuse-stream-options="+a.oneOf("400", "422")+a.oneOf("", " usage=last"), "", 0)
}

// slowReader takes its time, so that what it does not take has to wait somewhere.
func (a *app) slowReader(ctx context.Context) error {
	return a.streamFrom(ctx, a.well(), "chunks=1000", "", time.Millisecond)
}

// streamFrom reads a stream to its end, which must be there or be said not to be.
func (a *app) streamFrom(ctx context.Context, host, fault, further string, pause time.Duration) error {
	marker := a.marker()
	answer, err := a.post(ctx, host, "/v1/chat/completions", prompt(a.words(marker, 50), `,"stream":true`+further), fault)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, usage, err := readStream(ctx, answer.Body, pause)
	if err != nil {
		return err
	}
	if !strings.Contains(text, marker) && !strings.Contains(text, "word1") {
		return fmt.Errorf("this is no answer with %s: %.200s", marker, text)
	}
	if asked := further != ""; host != shaky && host != pool && !strings.Contains(fault, "usage=") && usage != asked {
		return fmt.Errorf("the fault %q, asked for usage: %v, got it: %v", fault, asked, usage)
	}
	return nil
}

// readStream gives the text of a stream and whether it speaks of usage. It reads on to the end in any case, as an app that
// wants to use its connection again does.
func readStream(ctx context.Context, body io.Reader, pause time.Duration) (text string, usage bool, err error) {
	lines := bufio.NewReader(body)
	ended := false
	var said error
	for {
		line, err := lines.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF) && (ended || said != nil):
			return text, usage, said
		case errors.Is(err, io.EOF):
			return text, usage, fmt.Errorf("the stream ends without [DONE] and without an error, after %q", text)
		case err != nil:
			return text, usage, &cutOff{err.Error()}
		}
		data, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			ended = true
			continue
		}
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
			Usage   json.RawMessage
			Error   *struct{ Code string }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return text, usage, fmt.Errorf("%w: %.200s", err, data)
		}
		if chunk.Error != nil {
			said = &cutOff{"said " + chunk.Error.Code}
		}
		if len(chunk.Choices) > 0 {
			text += chunk.Choices[0].Delta.Content
		}
		usage = usage || chunk.Usage != nil
		wait(ctx, pause)
	}
}

// response asks the Responses API, as a stream or not.
func (a *app) response(ctx context.Context) error {
	marker := a.marker()
	if a.r.IntN(2) == 0 {
		answer, err := a.post(ctx, a.well(), "/v1/responses", `{"input":"`+a.words(marker, 50)+`"}`, a.shapeOfWords())
		if err != nil {
			return err
		}
		return whole(answer, marker)
	}
	answer, err := a.post(ctx, a.well(), "/v1/responses", `{"input":"`+a.words(marker, 50)+`","stream":true}`, a.shapeOfWords())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return &cutOff{err.Error()}
	}
	_, last, ok := strings.Cut(string(raw), "event: response.completed\n")
	if !ok || !strings.Contains(last, marker) || !strings.HasSuffix(last, "\n\n") {
		return fmt.Errorf("the stream has no end with %s: %.200s", marker, last)
	}
	return nil
}

// leaveStream goes away after some events.
func (a *app) leaveStream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer, err := a.post(ctx, left, "/v1/chat/completions", prompt(a.words(a.marker(), 50), `,"stream":true`), a.oneOf("chunks=40 chunk-delay=2ms", "chunks=2000"))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	for range a.r.IntN(60) {
		if _, err := lines.ReadString('\n'); err != nil {
			return &cutOff{err.Error()}
		}
	}
	return nil
}

// leaveBefore goes away before anything of the answer is there.
func (a *app) leaveBefore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.r.IntN(30))*time.Millisecond)
	defer cancel()
	answer, err := a.post(ctx, left, "/v1/chat/completions", prompt(a.words(a.marker(), 50), a.oneOf("", `,"stream":true`)), "stall-after=0")
	if err == nil { // the head of a stream is there at once
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, answer.Body)
	}
	return nil
}

// leaveRequest goes away in the middle of its own request.
func (a *app) leaveRequest(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.w.listen)
	if err != nil {
		return err
	}
	defer conn.Close()
	whole := prompt(a.words(a.marker(), 20_000), "")
	_, err = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", left, len(whole)+1, whole[:a.r.IntN(len(whole))])
	return err
}
