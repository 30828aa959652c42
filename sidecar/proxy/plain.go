package proxy

import (
	"io"

	"remora.dev/remora/sidecar/routing"
)

const (
	// countedBody is the largest body of a plain host that is read before it is sent on, so that what it asks for can be counted.
	countedBody = 4 << 20
	// mirroredBody is the largest that is read so for a copy.
	mirroredBody = 1 << 20
)

// intakePlain takes in what it is good to have of a body that is nobody's business: of an inference, all of it, if that is not too
// much; of anything else, what is so short that it may as well be sent again.
func (c *call) intakePlain(in io.Reader, length int, host *routing.Host) *failure {
	most := int64(plainHead)
	switch o := c.operation; {
	case o != nil && o.JSON && len(c.ctx.Request.Header.ContentEncoding()) == 0:
		most = countedBody
	case mirrors(host.Match(matchable{c}, nil)):
		most = mirroredBody
	case length < 0:
		c.rest = in
		return nil
	}
	if most = min(most, host.MaxBody); int64(length) > most {
		c.rest = in
		return nil
	}
	return c.takeIn(in, length, most)
}

// plainModel gives the model that a body asks for, if it is one that says so.
func (c *call) plainModel() []byte {
	if c.rest != nil || len(c.ctx.Request.Header.ContentEncoding()) > 0 {
		return nil
	}
	d, f := scan(c.body)
	if f != nil {
		return nil
	}
	return d.modelValue
}

// edited tells whether the configured model and stream are written into the body.
func (c *call) edited() bool { return c.operation != nil && c.operation.Edited && !c.plain }

// shown is the operation as far as the request shows it at the backend.
func (c *call) shown() *routing.Operation {
	if c.plain {
		return nil
	}
	return c.operation
}
