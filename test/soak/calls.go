package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/websocket"

	"remora.dev/remora/test/llmserver"
)

// prompt is the body of a chat completion.
func prompt(text, further string) string {
	return `{"messages":[{"role":"system","content":"Be kind to all."},{"role":"user","content":"` + text + `"}]` + further + `}`
}

func (a *app) chat(ctx context.Context) error {
	marker := a.marker()
	answer, err := a.post(ctx, a.well(), "/v1/chat/completions", prompt(a.words(marker, 200), ""), a.shapeOfWords())
	if err != nil {
		return err
	}
	return whole(answer, marker)
}

// shapeOfWords is a shape in which the answer repeats the marker.
func (a *app) shapeOfWords() string {
	shape := a.shape()
	if strings.Contains(shape, "chunks=") {
		return ""
	}
	return shape
}

func (a *app) completion(ctx context.Context) error {
	marker := a.marker()
	answer, err := a.post(ctx, a.well(), "/v1/completions", `{"prompt":"`+a.words(marker, 50)+`"}`, a.shapeOfWords())
	if err != nil {
		return err
	}
	return whole(answer, marker)
}

func (a *app) embedding(ctx context.Context) error {
	answer, err := a.post(ctx, a.well(), "/v1/embeddings", `{"model":"e","input":["`+a.words(a.marker(), 100)+`","x"]}`, a.oneOf("", "usage=none"))
	if err != nil {
		return err
	}
	return whole(answer, `"embedding"`)
}

func (a *app) image(ctx context.Context) error {
	answer, err := a.post(ctx, a.well(), "/v1/images/generations", `{"model":"i","prompt":"`+a.words(a.marker(), 20)+`"}`, "")
	if err != nil {
		return err
	}
	return whole(answer, `"url"`)
}

func (a *app) largePrompt(ctx context.Context) error {
	marker := a.marker()
	answer, err := a.post(ctx, a.well(), "/v1/chat/completions", prompt(a.words(marker, 100_000), ""), "")
	if err != nil {
		return err
	}
	return whole(answer, marker)
}

func (a *app) compressedPrompt(ctx context.Context) error {
	marker := a.marker()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, prompt(a.words(marker, 5000), ""))
	_ = z.Close()
	answer, err := a.post(ctx, a.well(), "/v1/chat/completions", b.String(), "", "Content-Encoding", "gzip")
	if err != nil {
		return err
	}
	return whole(answer, marker)
}

// upload sends a file, as it is made, and wants its hash back.
func (a *app) upload(ctx context.Context) error {
	size := int64(1 + a.r.IntN(1<<a.r.IntN(22)))
	in, out := io.Pipe()
	defer in.Close()
	form, hash := multipart.NewWriter(out), sha256.New()
	seed := byte(a.r.IntN(256))
	go func() {
		_ = form.WriteField("model", "whisper")
		part, _ := form.CreateFormFile("file", "a.wav")
		_, err := io.CopyN(io.MultiWriter(part, hash), noise(seed), size)
		_ = form.Close()
		_ = out.CloseWithError(err) // nil is the end
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.well()+"/v1/audio/transcriptions", in)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", form.FormDataContentType())
	answer, err := a.do(r)
	if err != nil {
		return err
	}
	return whole(answer, hex.EncodeToString(hash.Sum(nil)))
}

// noise reads as bytes that are not all the same.
type noise byte

func (n noise) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(n) + byte(i*7)
	}
	return len(p), nil
}

func (a *app) foreign(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+foreign+"/v1/models", nil)
	if err != nil {
		return err
	}
	answer, err := a.do(r)
	if err != nil {
		return err
	}
	return whole(answer, `"data"`)
}

// realtime has a conversation over a WebSocket and closes it, in order or not.
func (a *app) realtime(ctx context.Context) error {
	config, err := websocket.NewConfig("ws://"+steady+"/v1/realtime?model=r", "http://"+steady)
	if err != nil {
		return err
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", a.w.listen)
	if err != nil {
		return err
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(callLimit))
	conn, err := websocket.NewClient(config, raw)
	if err != nil {
		return err
	}
	var heard string
	if err := websocket.Message.Receive(conn, &heard); err != nil {
		return fmt.Errorf("instead of the first event: %w", err)
	}
	if !strings.Contains(heard, "session.created") {
		return fmt.Errorf("the first event is %.200q", heard)
	}
	for range a.r.IntN(6) {
		said := fmt.Sprintf(`{"type":"conversation.item.create","item":%q}`, a.words(a.marker(), 1<<a.r.IntN(12)))
		if err := websocket.Message.Send(conn, said); err != nil {
			return err
		}
		if err := websocket.Message.Receive(conn, &heard); err != nil {
			return fmt.Errorf("after %.200q: %w", said, err)
		}
		if heard != said {
			return fmt.Errorf("said %.200q, heard %.200q", said, heard)
		}
	}
	if a.r.IntN(2) == 0 {
		return nil // and away
	}
	return conn.Close()
}

// scriptFault lets the next request to the shaky provider fail, or perhaps not.
func (a *app) scriptFault() error {
	n := a.r.IntN(12)
	text := a.oneOf("split", "chunked", "", "", "usage=last", "usage=own", "early-close", "status=500", "status=503 retry-after=0", "status=429 retry-after=1", "status=400",
		"reset", "close", "garbage", fmt.Sprintf("cut-after=%d", n), fmt.Sprintf("cut-after=%d mid-event", n),
		fmt.Sprintf("chunks=30 cut-after=%d usage=running", n), fmt.Sprintf("stall-after=%d", n%3), "stall-after=0 headers=early", fmt.Sprintf("error-after=%d", n))
	fault, err := llmserver.ParseFault(text)
	if err != nil {
		return err
	}
	a.w.provider.Script(shaky, fault)
	return nil
}

func (a *app) shaky(ctx context.Context) error { return a.faulty(ctx, shaky) }

func (a *app) fallBack(ctx context.Context) error { return a.faulty(ctx, pool) }

// faulty asks where a fault may be: what comes is whole, or says that it is not.
func (a *app) faulty(ctx context.Context, host string) error {
	if err := a.scriptFault(); err != nil {
		return err
	}
	if a.r.IntN(2) == 0 {
		return a.streamFrom(ctx, host, "", "", 0)
	}
	marker := a.marker()
	answer, err := a.post(ctx, host, "/v1/chat/completions", prompt(a.words(marker, 50), ""), "")
	if err != nil {
		return err
	}
	return whole(answer, `"choices"`)
}
