package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// serveUpstream is the role of the provider. It answers 422 with a reason to any
// request that a proxy has spoilt, and says on out where it listens.
//
//	args: CERTIFICATE KEY
func serveUpstream(args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("upstream: wants a certificate and a key")
	}
	certificate, err := tls.LoadX509KeyPair(args[0], args[1])
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, listener.Addr().(*net.TCPAddr).Port)
	server := &fasthttp.Server{Handler: newProvider().answer, NoDefaultServerHeader: true, NoDefaultDate: true}
	return server.Serve(tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS13,
	}))
}

type provider struct {
	prompts    map[string]prompt
	completion []byte
}

func newProvider() *provider {
	return &provider{prompts(), completion(providerModel)}
}

func (p *provider) answer(ctx *fasthttp.RequestCtx) {
	if err := p.judge(&ctx.Request); err != nil {
		ctx.SetStatusCode(fasthttp.StatusUnprocessableEntity)
		ctx.SetBodyString(err.Error())
		return
	}
	body := ctx.Request.Body()
	ctx.SetContentType("application/json")
	if string(ctx.Request.Header.Peek(promptHeader)) == anyPrompt {
		ctx.SetBody(completion(string(modelOf(body))))
		return
	}
	chunks, err := fasthttp.ParseUint(ctx.Request.Header.Peek(chunksHeader))
	if err != nil {
		ctx.Response.SetBodyRaw(p.completion)
		return
	}
	pace, err := fasthttp.ParseUint(ctx.Request.Header.Peek(paceHeader))
	if err != nil {
		ctx.Error("it is not known how fast the stream is to be", fasthttp.StatusUnprocessableEntity)
		return
	}
	if !bytes.Contains(body, []byte(`"stream":true`)) {
		ctx.Error("a stream was asked for, and the request that arrived does not ask for it", fasthttp.StatusUnprocessableEntity)
		return
	}
	ctx.SetContentType("text/event-stream")
	// What turns buffering off in nginx for this answer, as `proxy_buffering off` would for all.
	ctx.Response.Header.Set("X-Accel-Buffering", "no")
	ctx.SetBodyStream(&stream{
		chunks:  chunks,
		pace:    time.Duration(pace) * time.Millisecond,
		reports: reports(bytes.Contains(body, []byte(`"include_usage":true`))),
	}, -1)
}

// judge says what is wrong with a request that came through a proxy; nil if nothing is.
func (p *provider) judge(request *fasthttp.Request) error {
	header := &request.Header
	if host := string(header.Host()); host != providerHost && !strings.HasPrefix(host, providerHost+":") {
		return fmt.Errorf("the Host header is %q", host)
	}
	if !header.IsPost() || string(request.URI().Path()) != providerPath {
		return fmt.Errorf("the request is %s %s", header.Method(), request.URI().Path())
	}
	if key := string(header.Peek(fasthttp.HeaderAuthorization)); key != "Bearer "+providerKey {
		return errors.New("the Authorization header is not the provider's")
	}
	name := string(header.Peek(promptHeader))
	prompt, known := p.prompts[name]
	if !known {
		return fmt.Errorf("the prompt %q is unknown", name)
	}
	body := request.Body()
	if !prompt.isWholeIn(body) {
		return fmt.Errorf("the prompt %s did not arrive whole: %d bytes", name, len(body))
	}
	if model := modelOf(body); name != anyPrompt && string(model) != providerModel {
		return fmt.Errorf("the model is %q", model)
	}
	return nil
}
