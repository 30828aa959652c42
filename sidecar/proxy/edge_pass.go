package proxy

import (
	"context"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// pass joins a client to a server behind the gateway, which ends its TLS. What is in there is nobody's business.
func (d *door) pass(client *clientConn, rule *routing.Rule) {
	p := d.edge.proxy
	d.edge.crowd.know(client)
	c := &call{proxy: p, client: client, rule: rule, authority: client.public.sni, once: true, budget: &retryBudget{now: time.Now}}
	defer c.leave()
	conn, f := c.reach()
	if f != nil {
		p.metrics.Failures(string(f.code)).Inc()
		p.log.Info("connection not passed through", append([]any{"port", d.port}, c.details(f)...)...)
		_ = client.Close()
		return
	}
	client.attach(nil)
	ctx, cancel := context.WithCancel(context.Background())
	r := &redirected{proxy: p, client: client.TCPConn, server: conn.raw, course: tunnelled, ctx: ctx, cancel: cancel}
	if !p.redirects.add(r) {
		cancel()
		conn.discard()
		_ = client.Close()
		return
	}
	p.departures.forget(client) // a side may finish before the other does
	defer p.redirects.release()
	defer conn.discard()
	defer r.end()
	p.spliced.Connections.Inc()
	heard := client.public.heard
	p.spliced.Sent.Add(len(heard))
	client.public.heard = nil
	if _, err := conn.raw.Write(heard); err != nil {
		r.setBroken()
		return
	}
	r.copies.Go(func() { r.bring(conn.raw) })
	r.relay(conn.raw, r.client)
	r.copies.Wait()
}

// reach makes a connection to a backend of the rule. The trial goes on with it.
func (c *call) reach() (*upConn, *failure) {
	c.ctx = &fasthttp.RequestCtx{} // which says nothing that a server could be chosen by
	c.ctx.Init2(c.client, quiet{}, false)
	for {
		if r := c.choose(); r != nil {
			return nil, fail(r.Code, "%s", r.Message)
		}
		c.made++
		f, reason := c.enter(), retryReason{}
		var conn *upConn
		if f == nil {
			conn, f = c.plainPool().get(c.client, true, time.Time{}, &c.target.Policy)
			reason = retryReason{allowed: true, same: true}
		}
		if f == nil {
			c.proxy.ejections.completed(&c.trial)
			return conn, nil
		}
		if c.move(f) {
			continue
		}
		c.judge(f)
		if f.code == routing.ClientGone {
			return nil, f
		}
		if reason = c.again(reason); !reason.granted {
			return nil, f
		}
		if f := c.pause(reason.wait); f != nil {
			return nil, f
		}
	}
}
