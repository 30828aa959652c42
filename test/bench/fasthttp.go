package main

import (
	"encoding/json"
	"errors"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/test/bench/pinned"
)

// patience is how long a connection to the provider may take on a busy machine, on which nothing is to fail.
const patience = time.Minute

// serveBare is the role of the yardstick: the least that a reverse proxy made of
// fasthttp can do. What Remora costs above it is the cost of what Remora does.
//
//	args: LISTEN UPSTREAM CA
func serveBare(args []string) error {
	return serveFasthttp(args, func(*fasthttp.Request) error { return nil })
}

// serveCoding is the same as one would write it to edit the model: with encoding/json.
func serveCoding(args []string) error {
	return serveFasthttp(args, func(request *fasthttp.Request) error {
		var body struct {
			Model       string    `json:"model"`
			Messages    []message `json:"messages"`
			Temperature float64   `json:"temperature"`
			Stream      bool      `json:"stream,omitempty"`
		}
		if err := json.Unmarshal(request.Body(), &body); err != nil {
			return err
		}
		body.Model = providerModel
		edited, err := json.Marshal(&body)
		request.SetBodyRaw(edited)
		request.Header.Set(fasthttp.HeaderAuthorization, "Bearer "+providerKey)
		return err
	})
}

func serveFasthttp(args []string, edit func(*fasthttp.Request) error) error {
	if len(args) != 3 {
		return errors.New("wants the address to listen on, the upstream's, and a CA file")
	}
	authority, err := trust(args[2])
	if err != nil {
		return err
	}
	upstream := &fasthttp.HostClient{
		Addr:                     args[1],
		Dial:                     func(address string) (net.Conn, error) { return fasthttp.DialTimeout(address, patience) },
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
			if err := edit(&ctx.Request); err != nil {
				ctx.Error(err.Error(), fasthttp.StatusBadRequest)
				return
			}
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
	return ofOurs("fasthttp", "bare", "bare reverse proxy, fasthttp "+libraryVersion("github.com/valyala/fasthttp"), configuredCaller)
}

func codingFasthttp() contestant {
	return ofOurs("fasthttp+json", "coding", "the same, edits the model with encoding/json", unawareCaller)
}

// ofOurs is a contestant that this program plays in a role.
func ofOurs(name, role, version string, caller caller) contestant {
	return contestant{
		name: name,
		find: func() (string, string, error) { return pinned.Self, version, nil },
		command: func(binary string, at place) ([]string, error) {
			return []string{binary, role, at.listenAddress(), at.upstreamAddress(), at.authorityFile}, nil
		},
		caller: caller,
	}
}
