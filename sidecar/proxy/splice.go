package proxy

// segments is a body in up to 13 pieces: the app's own text, and what is put between.
type segments struct {
	part [13][]byte
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

// edits is what the proxy fills into a body.
type edits struct {
	model  []byte // a JSON string, in place of the app's; nil: the app's own stays
	stream bool   // true where the app does not say
	usage  bool   // stream_options.include_usage is set. Only where document.canAsk allows it.
}

var (
	modelKey      = []byte(`"model":`)
	streamTrue    = []byte(`"stream":true`)
	comma         = []byte(`,`)
	streamOptions = []byte(`"stream_options":{"include_usage":true}`)
	usageOptions  = []byte(`{"include_usage":true}`)
	includeUsage  = []byte(`"include_usage":true`)
	jsonTrue      = []byte(`true`)
)

// replacement puts text in the place of a span, which may be empty.
type replacement struct {
	span
	text, more []byte
}

// splice writes the edits between the app's own bytes.
func splice(text []byte, d *document, e edits) segments {
	var out segments
	at := 0
	insert := func(key, value []byte) {
		if at == 0 {
			out.add(text[:d.open])
			at = d.open
		} else {
			out.add(comma)
		}
		out.add(key)
		out.add(value)
	}
	if e.model != nil && !d.model.present() {
		insert(modelKey, e.model)
	}
	if e.stream && !d.stream.present() {
		insert(streamTrue, nil)
	}
	if e.usage && !d.options.present() {
		insert(streamOptions, nil)
	}
	if at > 0 && !d.empty {
		out.add(comma)
	}
	var first, second replacement
	if e.model != nil && d.model.present() {
		first = replacement{span: d.model, text: e.model}
	}
	if e.usage && d.options.present() {
		second = d.askUsage()
	}
	if second.present() && second.from < first.from {
		first, second = second, first
	}
	for _, r := range [...]replacement{first, second} {
		if r.present() {
			out.add(text[at:r.from])
			out.add(r.text)
			out.add(r.more)
			at = r.to
		}
	}
	out.add(text[at:])
	return out
}

// askUsage asks for usage in the stream_options that are there.
func (d *document) askUsage() replacement {
	switch inside := (span{d.options.from + 1, d.options.from + 1}); {
	case d.usage.present():
		return replacement{span: d.usage, text: jsonTrue}
	case d.optionsNull:
		return replacement{span: d.options, text: usageOptions}
	case d.optionsEmpty:
		return replacement{span: inside, text: includeUsage}
	default:
		return replacement{span: inside, text: includeUsage, more: comma}
	}
}
