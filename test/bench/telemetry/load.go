package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"

	"remora.dev/remora/test/llmserver"
)

func replace(settings, collector string) string {
	return strings.NewReplacer("COLLECTOR", collector, "\n", "\n    ").Replace(settings)
}

// ask is a request and what its answer has to have.
type ask struct {
	body, fault string
	wants       string
}

// request asks for a chat completion; a fault that says how many chunks there are has it streamed.
func request(model, fault string) ask {
	a := ask{fault: fault, wants: `"usage"`}
	further := ""
	if fault != "" {
		further, a.wants = `,"stream":true,"stream_options":{"include_usage":true}`, "data: [DONE]\n\n"
	}
	a.body = fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}]%s}`, model, strings.Repeat("one word of many ", 60), further)
	return a
}

// load asks one sidecar over connections that it keeps, and judges every answer.
type load struct{ client *fasthttp.HostClient }

func openLoad(address string) *load {
	return &load{&fasthttp.HostClient{
		Addr:                     address,
		Dial:                     func(address string) (net.Conn, error) { return fasthttp.DialTimeout(address, time.Minute) },
		MaxConns:                 4096,
		MaxIdleConnDuration:      time.Hour,
		ReadTimeout:              time.Minute, // nothing takes that long: it ends a run against a sidecar that hangs
		NoDefaultUserAgentHeader: true,
		// An answer that fails is a wrong answer: nothing is tried twice.
		RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
	}}
}

func (l *load) close() { l.client.CloseIdleConnections() }

// requests sends so many over some connections at once, each its next one as soon as the last is answered.
func (l *load) requests(ctx context.Context, a ask, connections, n int) error {
	var left atomic.Int64
	left.Store(int64(n))
	group, ctx := errgroup.WithContext(ctx)
	for range connections {
		group.Go(func() error {
			request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			defer fasthttp.ReleaseRequest(request)
			defer fasthttp.ReleaseResponse(response)
			request.SetRequestURI("http://" + host + "/v1/chat/completions")
			request.Header.SetMethod(fasthttp.MethodPost)
			request.Header.SetContentType("application/json")
			if a.fault != "" {
				request.Header.Set(llmserver.FaultHeader, a.fault)
			}
			request.SetBodyString(a.body)
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if err := l.client.Do(request, response); err != nil {
					return err
				}
				if response.StatusCode() != fasthttp.StatusOK || !bytes.Contains(response.Body(), []byte(a.wants)) {
					return fmt.Errorf("answered %d with %d bytes, %.300q", response.StatusCode(), len(response.Body()), response.Body())
				}
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}
