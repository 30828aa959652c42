package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"
)

// load asks one proxy over connections that it keeps, and judges every answer.
type load struct {
	client *fasthttp.HostClient
	slow   time.Duration // of the last server
}

func openLoad(address string, slow time.Duration) *load {
	return &load{slow: slow, client: &fasthttp.HostClient{
		Addr:                     address,
		Dial:                     func(address string) (net.Conn, error) { return fasthttp.DialTimeout(address, time.Minute) },
		MaxConns:                 4096,
		MaxIdleConnDuration:      time.Hour,
		ReadTimeout:              time.Minute, // nothing takes that long: it ends a run against a proxy that hangs
		NoDefaultUserAgentHeader: true,
		// An answer that fails is a wrong answer: nothing is tried twice.
		RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
	}}
}

func (l *load) close() { l.client.CloseIdleConnections() }

// requests sends so many over some connections at once, each its next one as soon as the last is answered.
func (l *load) requests(ctx context.Context, connections, n int) (asked, error) {
	var all asked
	var mu sync.Mutex
	var left atomic.Int64
	left.Store(int64(n))
	group, ctx := errgroup.WithContext(ctx)
	for range connections {
		group.Go(func() error {
			mine, err := l.one(ctx, &left)
			mu.Lock()
			defer mu.Unlock()
			for i, n := range mine.by {
				all.by[i] += n
			}
			all.took = append(all.took, mine.took...)
			return err
		})
	}
	return all, group.Wait()
}

func (l *load) one(ctx context.Context, left *atomic.Int64) (mine asked, err error) {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	request.SetRequestURI("http://" + host + path)
	request.Header.SetMethod(fasthttp.MethodPost)
	request.Header.SetContentType("application/json")
	if l.slow > 0 {
		request.Header.Set(waitHead, strconv.FormatInt(l.slow.Milliseconds(), 10))
	}
	request.SetBodyRaw(prompt)
	for left.Add(-1) >= 0 && ctx.Err() == nil {
		start := time.Now()
		if err := l.client.Do(request, response); err != nil {
			return mine, err
		}
		i := serverOf(response)
		if i < 0 {
			return mine, fmt.Errorf("answered %d with %d bytes, %.300q", response.StatusCode(), len(response.Body()), response.Body())
		}
		mine.by[i]++
		mine.took = append(mine.took, time.Since(start))
	}
	return mine, ctx.Err()
}

var answers = func() (all [count][]byte) {
	for i := range all {
		all[i] = answer(i)
	}
	return all
}()

// serverOf says which server an answer is of; -1: it is of none, or not whole.
func serverOf(response *fasthttp.Response) int {
	if response.StatusCode() == fasthttp.StatusOK {
		for i := range answers {
			if bytes.Equal(response.Body(), answers[i]) {
				return i
			}
		}
	}
	return -1
}
