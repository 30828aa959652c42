package metrics

import (
	"bytes"
	"io"
	"strconv"

	"github.com/VictoriaMetrics/metrics"
)

// An info is a gauge that is 1, whose labels say something.
type info struct {
	name   string
	labels func() []string
}

// Info shows what labels gives when it is asked: names and values by turns.
func (s *Set) Info(name string, labels func() []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.infos = append(s.infos, info{name, labels})
}

// Write writes all of it in Prometheus' text form, and what the process needs: goroutines, memory, files, CPU, under
// the names that Prometheus' own clients give them.
func (s *Set) Write(w io.Writer) {
	_, _ = w.Write(s.Append(nil)) // who does not read it misses it
}

// Append adds what Write writes to b. It waits for nobody, and nobody waits for it for longer than the list of label sets takes to copy.
func (s *Set) Append(b []byte) []byte {
	s.calls.sweep()
	t := text{b: b}
	s.calls.append(&t)
	s.mu.Lock()
	infos := s.infos
	s.mu.Unlock()
	for _, i := range infos {
		t.begin(i.name)
		t.line("", labelsOf(i.labels()...), 1)
	}
	var others bytes.Buffer
	s.set.WritePrometheus(&others)
	metrics.WriteProcessMetrics(&others)
	metrics.WriteFDMetrics(&others)
	t.take(others.Bytes())
	return t.b
}

// A text is metrics as they are written, one family after the other.
type text struct {
	b      []byte
	family string
}

// begin begins a family.
func (t *text) begin(name string) {
	t.family = name
	kind, help := describe(name)
	t.b = append(append(append(append(t.b, "# HELP "...), name...), ' '), help...)
	t.b = append(append(append(append(t.b, "\n# TYPE "...), name...), ' '), kind...)
	t.b = append(t.b, '\n')
}

func (t *text) line(suffix, labels string, value float64) {
	t.b = append(appendName(t.b, t.family, suffix, labels), ' ')
	t.b = append(strconv.AppendFloat(t.b, value, 'g', -1, 64), '\n')
}

func (t *text) whole(labels string, value int64) {
	t.b = append(appendName(t.b, t.family, "", labels), ' ')
	t.b = append(strconv.AppendInt(t.b, value, 10), '\n')
}

func (t *text) histogram(h *histogram, labels string) { t.b = h.append(t.b, t.family, labels) }

// take adds lines of the library, which says nothing about them.
func (t *text) take(lines []byte) {
	t.family = ""
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		if n == 0 {
			n = len(lines)
		}
		line := lines[:n]
		lines = lines[n:]
		if end := bytes.IndexAny(line, "{ "); end > 0 && !t.within(line[:end]) {
			t.begin(familyOf(string(line[:end])))
		}
		t.b = append(t.b, line...)
	}
}

// within tells whether a line of that name belongs to the family that was begun.
func (t *text) within(name []byte) bool {
	rest, found := bytes.CutPrefix(name, []byte(t.family))
	if !found || t.family == "" {
		return false
	}
	switch string(rest) {
	case "":
		return true
	case "_bucket", "_sum", "_count":
		kind, _ := describe(t.family)
		return kind == kindHistogram || kind == kindSummary
	}
	return false
}

func (c *calls) append(t *text) {
	c.mu.RLock()
	of := make([]*series, 0, len(c.all))
	for _, one := range c.all {
		of = append(of, one)
	}
	parts, costs, asms, fallbacks := valuesOf(c.parts), valuesOf(c.costs), valuesOf(c.asm), valuesOf(c.fallbacks)
	sets := c.sets
	c.mu.RUnlock()

	t.write("gen_ai_client_token_usage", func() {
		for _, one := range of {
			for p, precision := range precisions {
				for d, direction := range directions {
					t.lazy(&one.usage[p][d], with(one.text, `gen_ai_token_type="`+direction+`",precision="`+precision+`"`))
				}
			}
		}
	})
	t.write("gen_ai_client_operation_duration_seconds", func() {
		for _, one := range of {
			for _, d := range one.ended() {
				if d.err == "" {
					t.histogram(d.histogram, one.text)
				} else {
					t.histogram(d.histogram, with(one.text, `error_type="`+d.err+`"`))
				}
			}
		}
	})
	t.write("gen_ai_client_operation_time_to_first_chunk_seconds", func() {
		for _, one := range of {
			t.lazy(&one.firstChunk, one.text)
		}
	})
	t.write("gen_ai_client_operation_time_per_output_chunk_seconds", func() {
		for _, one := range of {
			t.lazy(&one.perChunk, one.text)
		}
	})
	t.write("remora_model_token_parts_total", func() {
		for _, p := range parts {
			if p.text != "" {
				t.whole(p.text+`,type="cached"`, p.cached.Load())
				t.whole(p.text+`,type="reasoning"`, p.reasoned.Load())
			}
		}
	})
	t.write("remora_cost_total", func() {
		for _, p := range costs {
			t.line("", p.text, p.sum.load())
		}
	})
	t.write("asm_llm_proxy_prompt_tokens", func() {
		for _, a := range asms {
			t.whole(a.text, a.prompt.Load())
		}
	})
	t.write("asm_llm_proxy_completion_tokens", func() {
		for _, a := range asms {
			t.whole(a.text, a.completion.Load())
		}
	})
	t.write("remora_fallbacks_total", func() {
		for _, f := range fallbacks {
			t.whole(f.text, f.n.Load())
		}
	})
	t.write("remora_aborted_streams_total", func() {
		for i, p := range parties {
			t.whole(labelsOf("by", string(p)), c.aborted[i].Load())
		}
	})
	t.write("remora_added_seconds", func() { t.histogram(c.added, "") })
	t.write("remora_label_sets", func() { t.whole("", int64(sets)) })
}

// write writes a family: its lines have to be together. One without a line is left out.
func (t *text) write(name string, lines func()) {
	began := len(t.b)
	t.begin(name)
	head := len(t.b)
	if lines(); len(t.b) == head {
		t.b = t.b[:began]
	}
}

func (t *text) lazy(l *lazy, labels string) {
	if h := l.at.Load(); h != nil {
		t.histogram(h, labels)
	}
}

func valuesOf[K comparable, V any](m map[K]V) []V {
	all := make([]V, 0, len(m))
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// with adds labels to those that there are.
func with(labels, more string) string {
	if labels == "" {
		return more
	}
	return labels + "," + more
}
