package main

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/test/bench/pinned"
)

// serveBare is the role of the yardstick: the least that a balancing proxy made of fasthttp can do.
//
//	args: POLICY LISTEN SERVER…
func serveBare(args []string) error {
	if len(args) < 3 {
		return errors.New("bare: wants a policy, the address to listen on and those of the servers")
	}
	var upstreams []*fasthttp.HostClient
	for _, address := range args[2:] {
		upstreams = append(upstreams, &fasthttp.HostClient{
			Addr: address, MaxConns: 4096, MaxIdleConnDuration: 10 * time.Minute, StreamResponseBody: true,
			NoDefaultUserAgentHeader: true, DisablePathNormalizing: true,
		})
	}
	choose := chooser(policy(args[0]), len(upstreams))
	s := &fasthttp.Server{
		Handler: func(ctx *fasthttp.RequestCtx) {
			i, done := choose()
			defer done()
			if err := upstreams[i].Do(&ctx.Request, &ctx.Response); err != nil {
				ctx.Error(err.Error(), fasthttp.StatusBadGateway)
			}
		},
		NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true,
	}
	return s.ListenAndServe(args[1])
}

// chooser gives what chooses one of n servers, and is told when the call has ended.
func chooser(p policy, n int) func() (server int, done func()) {
	nothing := func() {}
	var turn atomic.Uint64
	under := make([]atomic.Int64, n)
	switch p {
	case leastRequest:
		return func() (int, func()) {
			a := rand.IntN(n)
			b := (a + 1 + rand.IntN(n-1)) % n
			if under[b].Load() < under[a].Load() {
				a = b
			}
			under[a].Add(1)
			return a, func() { under[a].Add(-1) }
		}
	case random:
		return func() (int, func()) { return rand.IntN(n), nothing }
	default:
		return func() (int, func()) { return int(turn.Add(1) % uint64(n)), nothing }
	}
}

// bare plays the role.
func bare() contestant {
	return contestant{
		program: yardstick,
		find: func() (string, string, error) {
			return pinned.Self, "bare reverse proxy with its own few lines that balance", nil
		},
		command: func(binary string, p policy, at place) ([]string, error) {
			argv := []string{binary, "bare", string(p), at.address()}
			for _, s := range at.servers {
				argv = append(argv, s.String())
			}
			return argv, nil
		},
	}
}
