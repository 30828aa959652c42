package main

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// mostAtOnce bounds how many streams of an open loop are under way. Where a machine is so busy that more would be, the others
// are asked for late, and waiting counts for them all the same: else it would end with thousands of handshakes.
const mostAtOnce = 256

// openLoop asks for short streams at times that are fixed beforehand, whether or not those before have been answered, and
// returns how long after its time each had its first chunk: a proxy that halts makes all wait whose time comes meanwhile.
func (l *load) openLoop(ctx context.Context, count, perSecond int) (waited []time.Duration, err error) {
	prompt := prompts()["small"]
	body := prompt.streamBody(l.caller.model)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var asked sync.WaitGroup
	// The kernel wakes this thread in time; the runtime's timers may be late by a millisecond.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	room := make(chan struct{}, mostAtOnce)
	begin := time.Now().Add(time.Millisecond)
	for i := range count {
		due := begin.Add(time.Second * time.Duration(i) / time.Duration(perSecond))
		sleepUntil(due)
		if ctx.Err() != nil {
			break
		}
		room <- struct{}{}
		asked.Go(func() {
			defer func() { <-room }()
			err := l.with(prompt, body, func(request *fasthttp.Request, response *fasthttp.Response) error {
				request.Header.Set(paceHeader, "0")
				d, err := l.stream(request, response, 1, due, func() {})
				mu.Lock()
				defer mu.Unlock()
				waited = append(waited, d.first...)
				return err
			})
			if err != nil {
				cancel(err)
			}
		})
	}
	asked.Wait()
	return waited, context.Cause(ctx)
}

func sleepUntil(t time.Time) {
	for rest := time.Until(t); rest > 0; rest = time.Until(t) {
		span := unix.NsecToTimespec(rest.Nanoseconds())
		_ = unix.Nanosleep(&span, nil) // a signal may end it early
	}
}
