package proxy

import "remora.dev/remora/sidecar/routing"

// segments is a body in up to seven pieces: the app's own text, and what is put between.
type segments struct {
	part [7][]byte
	n    int
	size int
}

func (s *segments) add(b []byte) {
	if len(b) > 0 {
		s.part[s.n] = b
		s.n++
		s.size += len(b)
	}
}

// pieces gives the body in order.
func (s *segments) pieces() [][]byte { return s.part[:s.n] }

var (
	modelKey   = []byte(`"model":`)
	streamTrue = []byte(`"stream":true`)
	comma      = []byte(`,`)
)

// splice writes what a target fills in between the app's own bytes: its model in place of the app's, and
// stream where the app does not say.
func splice(text []byte, d *document, t *routing.Target) segments {
	var out segments
	at := 0
	insertModel := t.JSONModel != nil && !d.model.present()
	insertStream := t.Stream && !d.stream.present()
	if insertModel || insertStream {
		out.add(text[:d.open])
		at = d.open
		if insertModel {
			out.add(modelKey)
			out.add(t.JSONModel)
			if insertStream || !d.empty {
				out.add(comma)
			}
		}
		if insertStream {
			out.add(streamTrue)
			if !d.empty {
				out.add(comma)
			}
		}
	}
	if t.JSONModel != nil && d.model.present() {
		out.add(text[at:d.model.from])
		out.add(t.JSONModel)
		at = d.model.to
	}
	out.add(text[at:])
	return out
}
