package main

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func TestAnOpenLoopAsksInTimeAndCountsFromWhenItShouldHave(t *testing.T) {
	const count = 20
	provider := newProvider()
	var all sync.WaitGroup
	all.Add(count)
	l := openLoad(serve(t, func(ctx *fasthttp.RequestCtx) {
		all.Done()
		all.Wait() // a proxy that halts until every request has been sent
		provider.answer(ctx)
	}), nil, configuredCaller)
	defer l.close()
	waited, err := l.openLoop(t.Context(), count, 1000)
	if err != nil || len(waited) != count {
		t.Fatalf("%d of %d were answered (%v)", len(waited), count, err)
	}
	// The last was due 19 ms after the first, which waited for it.
	if longest := slices.Max(waited); longest < (count-1)*time.Millisecond {
		t.Errorf("the one that waited longest says %v", longest)
	}
}

func TestAWrongAnswerEndsAnOpenLoop(t *testing.T) {
	l := openLoad(serve(t, func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("data: nonsense\n\n") }), nil, configuredCaller)
	defer l.close()
	if _, err := l.openLoop(t.Context(), 3, 1000); err == nil {
		t.Error("no error")
	}
}
