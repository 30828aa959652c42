package metrics

import (
	"strconv"
	"sync/atomic"
	"time"
)

// A shape is the bounds of a histogram's buckets: whole tokens, or nanoseconds that are shown as seconds. What is counted is whole, so that
// counting is one addition, whoever else counts.
type shape struct {
	bounds []int64
	le     []string // as they are shown, with that of the last bucket
	unit   float64  // what the sum is divided by
}

func tokens(bounds ...int64) *shape {
	s := &shape{bounds: bounds, unit: 1}
	for _, b := range bounds {
		s.le = append(s.le, strconv.FormatInt(b, 10))
	}
	s.le = append(s.le, "+Inf")
	return s
}

func seconds(bounds ...float64) *shape {
	s := &shape{unit: float64(time.Second)}
	for _, b := range bounds {
		s.bounds = append(s.bounds, int64(b*float64(time.Second)+0.5))
		s.le = append(s.le, strconv.FormatFloat(b, 'g', -1, 64))
	}
	s.le = append(s.le, "+Inf")
	return s
}

// A histogram counts values in buckets. The library's own has a lock for each value, and formats each line when it is read.
type histogram struct {
	shape  *shape
	sum    atomic.Int64
	counts []atomic.Uint64 // of each bucket alone; the last is what is over all bounds
}

func newHistogram(s *shape) *histogram {
	return &histogram{shape: s, counts: make([]atomic.Uint64, len(s.bounds)+1)}
}

func (h *histogram) observe(v int64) { h.observeMany(v, v, 1) }

// observeMany counts n values that are about as large as each; sum is what they are together.
func (h *histogram) observeMany(each, sum int64, n uint64) {
	i := 0
	for i < len(h.shape.bounds) && each > h.shape.bounds[i] {
		i++
	}
	h.counts[i].Add(n)
	h.sum.Add(sum)
}

// append writes the histogram. The count is that of the buckets: they are right for each other, whatever is counted meanwhile.
func (h *histogram) append(b []byte, name, labels string) []byte {
	var all uint64
	for i := range h.counts {
		all += h.counts[i].Load()
		b = append(append(b, name...), "_bucket{"...)
		if labels != "" {
			b = append(append(b, labels...), ',')
		}
		b = append(append(append(b, `le="`...), h.shape.le[i]...), `"} `...)
		b = append(strconv.AppendUint(b, all, 10), '\n')
	}
	b = append(appendName(b, name, "_sum", labels), ' ')
	b = append(strconv.AppendFloat(b, float64(h.sum.Load())/h.shape.unit, 'g', -1, 64), '\n')
	b = append(appendName(b, name, "_count", labels), ' ')
	return append(strconv.AppendUint(b, all, 10), '\n')
}

func appendName(b []byte, name, suffix, labels string) []byte {
	b = append(append(b, name...), suffix...)
	if labels != "" {
		b = append(append(append(b, '{'), labels...), '}')
	}
	return b
}

// A lazy histogram is made with its first value: most of a label set's have none.
type lazy struct{ at atomic.Pointer[histogram] }

func (l *lazy) of(s *shape) *histogram {
	if h := l.at.Load(); h != nil {
		return h
	}
	l.at.CompareAndSwap(nil, newHistogram(s))
	return l.at.Load()
}
