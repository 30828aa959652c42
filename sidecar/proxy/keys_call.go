package proxy

import (
	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// keyed is a call's key.
type keyed struct {
	index int    // in the target's keys; -1: there is none left
	tried uint64 // of the current attempt
	of    *namedKey
	value *keyValue
	turn  uint64 // of the rests, when it was taken
}

// chooseKey draws the key that an attempt begins with.
func (c *call) chooseKey() {
	c.key = keyed{}
	if c.target.Keyed() {
		c.key.index, _ = c.proxy.keys.pick(c.target, 0, c.once)
	}
}

// compose makes the head of the request, with the key as the table of the moment has it. Where that does not have it any
// more, another of the target's takes its place.
func (c *call) compose(out *outgoing) *failure {
	if c.target.Keyed() && !c.unlock() {
		return fail(routing.KeyRevoked, "every key of %s that this call may use was taken away while it waited: ask again", c.target.Provider)
	}
	c.mask = mask{}
	if v := c.key.value; v != nil {
		out.key, c.mask = v.key, v.mask
	}
	var valid bool
	if c.head, valid = out.head(c.head[:0], &c.ctx.Request.Header); !valid {
		return fail(routing.InvalidRequest, "a header name has a space in it: correct the client")
	}
	return nil
}

func (c *call) unlock() bool {
	k, t := c.proxy.keys, c.target
	for c.key.index >= 0 {
		c.key.turn = k.rests.turns.Load()
		if of := k.current().all[credentialID(t, c.key.index)]; of != nil {
			if v := of.usable(t, c.key.index); v != nil {
				c.key.of, c.key.value = of, v
				return true
			}
		}
		c.key.tried |= 1 << c.key.index
		c.key.index, _ = k.pick(t, c.key.tried, c.once)
	}
	return false
}

// board says that the key is sent on a connection. It is false where the head that was made has the wrong one by now.
func (c *call) board(conn *upConn) bool {
	if !c.target.Keyed() {
		return true
	}
	c.proxy.keys.current()
	return c.key.of.board(conn, c.key.value)
}

// refusesKey notes what an answer says of the key that was sent. If it is true, the request is to be sent again: with
// the value that the key has by now, or with another key of the target.
func (c *call) refusesKey(h *fasthttp.ResponseHeader) bool {
	k, t, status := c.proxy.keys, c.target, h.StatusCode()
	if !t.Keyed() {
		return false
	}
	c.key.of.counted.Answered(status)
	if !refusesKey(status) {
		if status < fasthttp.StatusBadRequest {
			k.rests.accepted(c.key.value, c.key.turn)
		}
		return false
	}
	again := !c.once && !c.late()
	if status != fasthttp.StatusTooManyRequests && c.renewed() {
		return again
	}
	if len(t.Keys) == 1 {
		return false
	}
	k.refused(c.key.of, c.key.value, c.key.turn, h)
	c.key.tried |= 1 << c.key.index
	if !again {
		return false
	}
	i, rests := k.pick(t, c.key.tried, false)
	if i < 0 || rests {
		return false
	}
	c.key.index = i
	return true
}

// renewed tells whether the key has another value by now than the one that was sent.
func (c *call) renewed() bool {
	of := c.proxy.keys.current().all[credentialID(c.target, c.key.index)]
	if of == nil {
		return false
	}
	v := of.usable(c.target, c.key.index)
	return v != nil && v.key != c.key.value.key
}

// withOtherKey sends the request again after refusesKey. For the app and the rule it is the same attempt.
func (c *call) withOtherKey(conn *upConn) (*failure, retryReason) {
	c.client.attach(nil)
	conn.leave(&c.ctx.Response.Header)
	c.rec.failed(routing.KeyRefused)
	c.made--
	return c.try()
}

// afterRevoked is how a call goes on that no key is left for: nothing was sent, as where there is no connection.
func (c *call) afterRevoked(f *failure) retryReason {
	return retryReason{allowed: f.code == routing.KeyRevoked && c.rule.Retries.ConnectFailure}
}

// origin is what the log says of where an answer came from.
func origin(t *routing.Target, key *namedKey) []any {
	var all []any
	if t != nil {
		all = append(all, "provider", t.Provider.String())
	}
	if key != nil {
		all = append(all, "key", key.id.Name)
	}
	return all
}

// answered tells who wants to know that much which provider and key an answer came from that has ended.
func (p *Proxy) answered(t *routing.Target, key *namedKey, conn *upConn, status int, complete bool) {
	if log := p.log.V(1); log.Enabled() {
		log.Info("answered", append(origin(t, key), "upstream", conn.pool.address, "status", status, "complete", complete)...)
	}
}
