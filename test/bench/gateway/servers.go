package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/test/bench/pinned"
)

// count is how many servers there are.
const count = 3

// Of a call.
const (
	host     = "api.example.com"
	path     = "/v1/chat/completions"
	waitHead = "X-Bench-Wait" // the milliseconds that the last server takes longer than the others
	model    = "bench-model"
)

// slowBy is what the slow server takes longer.
const slowBy = 20 * time.Millisecond

var prompt = []byte(`{"model":"` + model + `","messages":[{"role":"user","content":"` + strings.Repeat("Where were the crates when the clerk came by? ", 20) + `"}]}`)

// answer is that of a server, about 1 KB, which names it.
func answer(server int) []byte {
	return fmt.Appendf(nil, `{"id":"chatcmpl-%d","object":"chat.completion","created":1700000000,"model":%q,`+
		`"choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":211,"completion_tokens":187,"total_tokens":398}}`,
		server, model, strings.Repeat("They stood where the pilot had left them. ", 18))
}

// serveServers is the role of the servers, on addresses of loopback of their own. It answers 422 with a reason to what a proxy has spoilt.
func serveServers(_ []string, out io.Writer) error {
	failed := make(chan error, count)
	var listeners []net.Listener
	for i := range count {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.%d:0", 11+i))
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
		s := &fasthttp.Server{Handler: server(i), NoDefaultServerHeader: true, NoDefaultDate: true}
		go func() { failed <- s.Serve(l) }()
	}
	for _, l := range listeners {
		fmt.Fprintln(out, l.Addr())
	}
	return <-failed
}

func server(i int) fasthttp.RequestHandler {
	text := answer(i)
	return func(ctx *fasthttp.RequestCtx) {
		switch {
		case string(ctx.Host()) != host:
			ctx.Error(fmt.Sprintf("the Host header is %q", ctx.Host()), fasthttp.StatusUnprocessableEntity)
			return
		case !ctx.IsPost() || string(ctx.Path()) != path:
			ctx.Error(fmt.Sprintf("the request is %s %s", ctx.Method(), ctx.Path()), fasthttp.StatusUnprocessableEntity)
			return
		case string(ctx.PostBody()) != string(prompt):
			ctx.Error(fmt.Sprintf("the prompt did not arrive whole: %d bytes", len(ctx.PostBody())), fasthttp.StatusUnprocessableEntity)
			return
		}
		if wait, err := strconv.Atoi(string(ctx.Request.Header.Peek(waitHead))); err == nil && i == count-1 {
			<-time.After(time.Duration(wait) * time.Millisecond)
		}
		ctx.SetContentType("application/json")
		ctx.Response.SetBodyRaw(text)
	}
}

// servers are the running ones.
type servers struct {
	*pinned.Process
	addresses []netip.AddrPort
}

func beginServers(core int) (*servers, error) {
	p, err := pinned.Launch("servers", core, []string{pinned.Self, "servers"})
	if err != nil {
		return nil, err
	}
	s := &servers{Process: p}
	for range count {
		line, err := p.Out.ReadString('\n')
		var at netip.AddrPort
		if err == nil {
			at, err = netip.ParseAddrPort(strings.TrimSpace(line))
		}
		if err != nil {
			err = p.Explain(err)
			p.Stop()
			return nil, err
		}
		s.addresses = append(s.addresses, at)
	}
	return s, nil
}

// asked is what came of some calls: how many each server answered, and how long they took.
type asked struct {
	by   [count]int
	took []time.Duration
}
