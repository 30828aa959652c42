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
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// delays are what the clients of streams waited for.
type delays struct {
	first []time.Duration // from the request to the first chunk
	chunk []time.Duration // from the upstream's sending of a chunk to its arrival
}

// streaming says how streams are asked for.
type streaming struct {
	count, chunks int
	spread        time.Duration // they are opened evenly over it
	pace          time.Duration // between two chunks of one stream
	begun         func()        // called when each has had its first chunk, if not nil
}

// streams opens streams and reads them to their ends.
func (l *load) streams(ctx context.Context, s streaming) (delays, error) {
	prompt := prompts()["small"]
	body := prompt.streamBody(l.caller.model)
	start := time.Now()
	var all delays
	var mu sync.Mutex
	var begun atomic.Int64
	first := func() {
		if begun.Add(1) == int64(s.count) && s.begun != nil {
			s.begun()
		}
	}
	err := together(ctx, s.count, func(ctx context.Context, i int) error {
		select {
		case <-time.After(time.Until(start.Add(s.spread * time.Duration(i) / time.Duration(s.count)))):
		case <-ctx.Done():
			return ctx.Err()
		}
		return l.with(prompt, body, func(request *fasthttp.Request, response *fasthttp.Response) error {
			request.Header.Set(paceHeader, strconv.FormatInt(s.pace.Milliseconds(), 10))
			mine, err := l.stream(request, response, s.chunks, time.Now(), first)
			mu.Lock()
			defer mu.Unlock()
			all.first = append(all.first, mine.first...)
			all.chunk = append(all.chunk, mine.chunk...)
			return err
		})
	})
	return all, err
}

// stream reads one answer to its end. Its first chunk was due at the time given.
func (l *load) stream(request *fasthttp.Request, response *fasthttp.Response, chunks int, due time.Time, first func()) (delays, error) {
	request.Header.Set(chunksHeader, strconv.Itoa(chunks))
	response.StreamBody = true
	if err := l.client.Do(request, response); err != nil {
		return delays{}, err
	}
	if response.StatusCode() != fasthttp.StatusOK {
		return delays{}, fmt.Errorf("a stream was answered %d, %.300q", response.StatusCode(), response.Body())
	}
	d, err := readStream(response.BodyStream(), chunks, due, first)
	if closed := response.CloseBodyStream(); err == nil {
		err = closed
	}
	return d, err
}

// readStream wants exactly these chunks in their order, then [DONE] and the end: no usage, for which nobody has asked.
func readStream(body io.Reader, chunks int, due time.Time, first func()) (delays, error) {
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
			d.first = append(d.first, now.Sub(due))
			first()
		}
		d.chunk = append(d.chunk, delay)
	}
	line, err := next()
	if err != nil || string(line) != doneEvent {
		return d, fmt.Errorf("after %d chunks came %q instead of [DONE] (%v)", chunks, line, err)
	}
	if line, err := next(); !errors.Is(err, io.EOF) || len(line) > 0 {
		return d, fmt.Errorf("after [DONE] came %q (%v)", line, err)
	}
	return d, nil
}
