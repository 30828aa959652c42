package proxy

import (
	"encoding/hex"
	"math/rand/v2"
	"net"
	"strconv"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/routing"
)

// hash gives the hash of what calls have in common that are to go to the same server; false where the call does not have it.
func (c *call) hash(k *routing.HashKey) (uint64, bool) {
	switch {
	case k.SourceAddr && c.client.public != nil:
		return balance.Hash(c.client.address()), true
	case k.SourceAddr:
		a, ok := c.client.RemoteAddr().(*net.TCPAddr)
		if !ok { // a copy, for a mirror
			return 0, false
		}
		return balance.Hash(a.IP.To16()), true
	case c.ctx == nil: // what is in the connection is not known
		return 0, false
	case k.Header != "":
		value, ok := matchable{c}.Header(k.Header)
		return balance.Hash(value), ok
	case k.Cookie.Name != "":
		if value := c.ctx.Request.Header.Cookie(k.Cookie.Name); len(value) > 0 {
			return balance.Hash(value), true
		}
		if !k.Cookie.Set {
			return 0, false
		}
		if c.sticky == "" {
			var token [16]byte
			for i := range token {
				token[i] = byte(rand.Uint32())
			}
			c.sticky = hex.EncodeToString(token[:])
		}
		return balance.Hash(c.sticky), true
	case k.Query != "":
		value, ok := matchable{c}.QueryParameter(k.Query)
		return balance.Hash(value), ok
	}
	return 0, false
}

// stick has the client keep the cookie that its calls are told apart by, where it has none yet.
func (c *call) stick() {
	if c.sticky == "" || c.trial.group == nil {
		return
	}
	k := &c.target.Balance.Hash.Cookie
	line := k.Name + "=" + c.sticky
	if k.MaxAge > 0 {
		line += "; Max-Age=" + strconv.Itoa(k.MaxAge)
	}
	if k.Path != "" {
		line += "; Path=" + k.Path
	}
	c.ctx.Response.Header.Add(fasthttp.HeaderSetCookie, line+"; HttpOnly")
}
