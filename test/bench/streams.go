package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// delays are what the clients of streams waited for.
type delays struct {
	first []time.Duration // from the request to the first chunk
	chunk []time.Duration // from the upstream's sending of a chunk to its arrival
}

// streams opens count streams, evenly over spread, and reads them to their ends.
func (l *load) streams(ctx context.Context, count, chunks int, spread time.Duration) (delays, error) {
	prompt := prompts()["small"]
	body := prompt.streamBody(l.caller.model)
	start := time.Now()
	var all delays
	var mu sync.Mutex
	err := together(ctx, count, func(ctx context.Context, i int) error {
		select {
		case <-time.After(time.Until(start.Add(spread * time.Duration(i) / time.Duration(count)))):
		case <-ctx.Done():
			return ctx.Err()
		}
		return l.with(prompt, body, func(request *fasthttp.Request, response *fasthttp.Response) error {
			mine, err := l.stream(request, response, chunks)
			mu.Lock()
			defer mu.Unlock()
			all.first = append(all.first, mine.first...)
			all.chunk = append(all.chunk, mine.chunk...)
			return err
		})
	})
	return all, err
}

func (l *load) stream(request *fasthttp.Request, response *fasthttp.Response, chunks int) (delays, error) {
	request.Header.Set(chunksHeader, strconv.Itoa(chunks))
	response.StreamBody = true
	sent := time.Now()
	if err := l.client.Do(request, response); err != nil {
		return delays{}, err
	}
	if response.StatusCode() != fasthttp.StatusOK {
		return delays{}, fmt.Errorf("a stream was answered %d, %.300q", response.StatusCode(), response.Body())
	}
	d, err := readStream(response.BodyStream(), chunks, sent)
	if closed := response.CloseBodyStream(); err == nil {
		err = closed
	}
	return d, err
}

// readStream wants exactly these chunks in their order, then perhaps one of usage, then [DONE] and the end.
func readStream(body io.Reader, chunks int, sent time.Time) (delays, error) {
	var d delays
	lines := bufio.NewReader(body)
	next := func() ([]byte, error) {
		for {
			line, err := lines.ReadSlice('\n')
			if line = bytes.TrimRight(line, "\r\n"); err != nil || len(line) > 0 {
				return line, err
			}
		}
	}
	for i := range chunks {
		line, err := next()
		if err != nil {
			return d, fmt.Errorf("after %d of %d chunks: %w", i, chunks, err)
		}
		now := time.Now()
		delay, err := readChunk(line, i, now)
		if err != nil {
			return d, err
		}
		if i == 0 {
			d.first = append(d.first, now.Sub(sent))
		}
		d.chunk = append(d.chunk, delay)
	}
	line, err := next()
	if bytes.Contains(line, []byte(`"choices":[],"usage":{`)) {
		line, err = next()
	}
	if err != nil || string(line) != doneEvent {
		return d, fmt.Errorf("after %d chunks came %q instead of [DONE] (%v)", chunks, line, err)
	}
	if line, err := next(); !errors.Is(err, io.EOF) || len(line) > 0 {
		return d, fmt.Errorf("after [DONE] came %q (%v)", line, err)
	}
	return d, nil
}
