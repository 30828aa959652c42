package proxy

import (
	"bytes"
	"strconv"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/usage"
)

// promise is how many tokens a call is expected to take.
type promise struct{ input, output int64 }

// usualOutput is what an answer is expected to have as long as nothing is known.
const usualOutput = 256

// foresee estimates what a call takes: the prompt by its size, the answer by those before it, of which a limit that the client
// sets is the most. Clients often set one that is far above what they get, so that it is no estimate by itself.
func (c *call) foresee(g *group) promise {
	var p promise
	if c.operation == nil || !c.operation.JSON {
		return p
	}
	p.input = usage.Request(c.body)
	if !c.operation.Usage {
		return p
	}
	d := c.document
	if c.plain && c.rest == nil && len(c.ctx.Request.Header.ContentEncoding()) == 0 {
		d, _ = scan(c.body) // nobody has before
	}
	limit := d.limit(c.body)
	p.output = g.Expected()
	switch {
	case p.output == 0 && limit > 0:
		p.output = limit
	case p.output == 0:
		p.output = usualOutput
	case limit > 0:
		p.output = min(p.output, limit)
	}
	return p
}

// limit gives the most tokens that the answer may have; 0: any number.
func (d *document) limit(text []byte) int64 {
	if !d.most.present() {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text[d.most.from:d.most.to])), 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// follow corrects what the server still has to do by what has come of the answer.
func (s *stream) follow() {
	if s.promise.output == 0 || !s.begun {
		return
	}
	s.trial.call.Remaining(balance.StillToCome(s.promise.output, s.meter.Text()))
}

// learn has the next estimates know how long a complete answer was.
func (p *promise) learn(tr *trial, m *usage.Meter) {
	if p.output == 0 || tr.group == nil {
		return
	}
	if r, ok := m.Report(); ok {
		tr.group.Wrote(r.Output)
	} else if text := m.Text(); text > 0 {
		tr.group.Wrote(text)
	}
}
