package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// load sends requests to one address, over connections that it keeps, and judges every answer.
type load struct {
	client *fasthttp.HostClient
	scheme string
	caller caller
}

// openLoad prepares for an address; authority is nil for plain HTTP.
func openLoad(address string, authority *tls.Config, caller caller) *load {
	l := &load{
		client: &fasthttp.HostClient{
			Addr:                     address,
			Dial:                     func(address string) (net.Conn, error) { return fasthttp.DialTimeout(address, patience) },
			IsTLS:                    authority != nil,
			TLSConfig:                authority,
			MaxConns:                 4096,
			MaxIdleConnDuration:      time.Hour,
			ReadTimeout:              time.Minute, // nothing takes that long: it ends a run against a proxy that hangs
			NoDefaultUserAgentHeader: true,
			// An answer that fails is a wrong answer: nothing is tried twice.
			RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
		},
		scheme: "http",
		caller: caller,
	}
	if authority != nil {
		l.scheme = "https"
	}
	return l
}

func (l *load) close() { l.client.CloseIdleConnections() }

// with runs work with a request for the prompt and room for its answer.
func (l *load) with(prompt prompt, body []byte, work func(*fasthttp.Request, *fasthttp.Response) error) error {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	request.SetRequestURI(l.scheme + "://" + providerHost + providerPath)
	request.Header.SetMethod(fasthttp.MethodPost)
	request.Header.SetContentType("application/json")
	request.Header.Set(fasthttp.HeaderAuthorization, "Bearer "+l.caller.key)
	request.Header.Set(promptHeader, prompt.name)
	request.SetBodyRaw(body)
	return work(request, response)
}

// requests sends count requests over some connections at once, each its next one as soon as the last is answered.
func (l *load) requests(ctx context.Context, prompt prompt, connections, count int) error {
	body, want := prompt.body(l.caller.model), completion(providerModel)
	var left atomic.Int64
	left.Store(int64(count))
	return together(ctx, connections, func(ctx context.Context, _ int) error {
		return l.with(prompt, body, func(request *fasthttp.Request, response *fasthttp.Response) error {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if err := l.client.Do(request, response); err != nil {
					return err
				}
				if err := expect(response, want); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func expect(response *fasthttp.Response, want []byte) error {
	if response.StatusCode() != fasthttp.StatusOK || !bytes.Equal(response.Body(), want) {
		return fmt.Errorf("answered %d with %d bytes, %.300q", response.StatusCode(), len(response.Body()), response.Body())
	}
	return nil
}

// together runs n of work at once and returns the first error, which ends them all.
func together(ctx context.Context, n int, work func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			if err := work(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}
