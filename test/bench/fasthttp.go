package main

import (
	"errors"
	"time"

	"github.com/valyala/fasthttp"
)

// serveBare is the role of the yardstick: the least that a reverse proxy made of
// fasthttp can do. What Remora costs above it is the cost of what Remora does.
//
//	args: LISTEN UPSTREAM CA
func serveBare(args []string) error {
	if len(args) != 3 {
		return errors.New("bare: wants the address to listen on, the upstream's, and a CA file")
	}
	authority, err := trust(args[2])
	if err != nil {
		return err
	}
	upstream := &fasthttp.HostClient{
		Addr:                     args[1],
		IsTLS:                    true,
		TLSConfig:                authority,
		StreamResponseBody:       true,
		MaxConns:                 4096,
		MaxIdleConnDuration:      10 * time.Minute,
		NoDefaultUserAgentHeader: true,
		DisablePathNormalizing:   true,
	}
	server := &fasthttp.Server{
		// The server's own request and response go to the upstream and back, so that
		// nothing is copied; it flushes each read of a streamed answer.
		Handler: func(ctx *fasthttp.RequestCtx) {
			ctx.Request.URI().SetScheme("https")
			if err := upstream.Do(&ctx.Request, &ctx.Response); err != nil {
				ctx.Error(err.Error(), fasthttp.StatusBadGateway)
			}
		},
		NoDefaultServerHeader: true,
		NoDefaultDate:         true,
		NoDefaultContentType:  true,
	}
	return server.ListenAndServe(args[0])
}

func bareFasthttp() contestant {
	return contestant{
		name: "fasthttp",
		find: func() (string, string, error) {
			return self, "bare reverse proxy, fasthttp " + libraryVersion("github.com/valyala/fasthttp"), nil
		},
		command: func(binary string, at place) ([]string, error) {
			return []string{binary, "bare", at.listenAddress(), at.upstreamAddress(), at.authorityFile}, nil
		},
		caller: configuredCaller,
	}
}
