package proxy

import (
	"math/rand/v2"
	"strconv"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// act does what a rule asks for beside sending the request to a backend. If it has answered, nothing is left to be done.
func (c *call) act(a *routing.Action) (answered bool, f *failure) {
	if f := c.trouble(&a.Fault); f != nil {
		return false, f
	}
	switch {
	case a.Redirect != nil:
		c.redirect(a.Redirect)
	case a.Direct != nil:
		c.ctx.Response.Header.SetStatusCode(a.Direct.Status)
		if len(a.Direct.Body) > 0 {
			c.ctx.Response.Header.SetContentType("text/plain")
			c.ctx.Response.SetBodyRaw(a.Direct.Body)
		}
	default:
		for i := range a.Mirrors {
			c.mirror(&a.Mirrors[i])
		}
		return false, nil
	}
	c.editAnswer()
	return true, nil
}

// trouble makes the trouble that is asked for.
func (c *call) trouble(t *routing.Fault) *failure {
	if t.Delay > 0 && hit(t.DelayShare) {
		if f := c.pause(t.Delay); f != nil {
			return f
		}
	}
	if t.Abort > 0 && hit(t.AbortShare) {
		f := fail(routing.FaultInjected, "a VirtualService asks for this failure (fault.abort): remove it there, when it has shown what it is to show")
		f.as = t.Abort
		return f
	}
	return nil
}

// hit draws with a chance.
func hit(share float64) bool { return share >= 1 || share > 0 && rand.Float64() < share }

// redirect sends the client elsewhere.
func (c *call) redirect(r *routing.Redirect) {
	scheme, own := r.Scheme, c.client.public.scheme()
	if scheme == "" {
		scheme = own
	}
	to := append([]byte(scheme), "://"...)
	_, asked, _ := splitAuthority(c.authority) // parse has seen that it can be
	explicit := len(hostOf(c.authority)) < len(c.authority)
	switch {
	case r.Authority != "":
		to = append(to, r.Authority...)
	default:
		to = append(to, hostOf(c.authority)...)
	}
	switch {
	case r.Authority != "" && hasPort(r.Authority):
	case r.Port != 0:
		to = strconv.AppendUint(append(to, ':'), uint64(r.Port), 10)
	case r.DerivePort, r.Authority != "", !explicit:
	case scheme != own && (asked == 80 || asked == 443): // the other scheme has another
	default:
		to = strconv.AppendUint(append(to, ':'), uint64(asked), 10)
	}
	switch {
	case r.Path != "" && hasQuery(r.Path):
		to = append(to, r.Path...)
	case r.Path != "":
		to = c.appendTarget(to, []byte(r.Path))
	case r.HasPrefix:
		to = c.appendTarget(to, c.rule.InPlace(r.Prefix, c.path))
	default:
		to = c.appendTarget(to, c.path)
	}
	h := &c.ctx.Response.Header
	h.SetStatusCode(r.Status)
	h.SetBytesV(fasthttp.HeaderLocation, appendOneLine(nil, string(to)))
}
