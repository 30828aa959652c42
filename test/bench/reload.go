package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/valyala/fasthttp"
)

// reloads changes the model in Remora's file and returns, for each change, the time from the
// rename that makes it visible to the end of the first answer that shows it. It asks one request
// after the other meanwhile, and each must be answered with the old model or the new one.
func reloads(ctx context.Context, r *running, changes int) ([]time.Duration, error) {
	l := r.load()
	defer l.close()
	prompt := prompts()[anyPrompt]
	var took []time.Duration
	old := providerModel
	for i := range changes {
		// Uneven pauses, so that no period of the sidecar's own hides or adds a delay.
		select {
		case <-time.After(time.Duration(20+i*37%100) * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		model := fmt.Sprintf("bench-model-%d", i)
		draft, err := r.draftRemora(model)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if err := os.Rename(draft, r.remoraFile()); err != nil {
			return nil, err
		}
		err = l.with(prompt, prompt.body(l.caller.model), func(request *fasthttp.Request, response *fasthttp.Response) error {
			return l.until(ctx, request, response, old, model)
		})
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
		old = model
	}
	return took, nil
}

// until repeats a request until the model in its answer has become the new one.
func (l *load) until(ctx context.Context, request *fasthttp.Request, response *fasthttp.Response, old, model string) error {
	limit := time.Now().Add(10 * time.Second)
	for ctx.Err() == nil {
		if err := l.client.Do(request, response); err != nil {
			return err
		}
		if expect(response, completion(model)) == nil {
			return nil
		}
		if err := expect(response, completion(old)); err != nil {
			return err
		}
		if time.Now().After(limit) {
			return errors.New("a change of the configuration had no effect within 10 s")
		}
	}
	return ctx.Err()
}
