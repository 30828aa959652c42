package otlp

import "time"

// What waits is bounded, and so is what is sent at once.
const (
	queueSpans = 4096
	queueBytes = 2 << 20
	batchSpans = 512
	batchBytes = 256 << 10
	batchTime  = 5 * time.Second // from the first span until it is sent, as OpenTelemetry's SDKs have it
)

// batch is spans that are sent to one collector by one request.
type batch struct {
	to     *target
	born   time.Time
	spans  []byte // fields of ScopeSpans
	count  int
	sealed bool // it takes no more: it is being sent, or others wait behind it
}

func (b *batch) full() bool {
	return b.sealed || b.count >= batchSpans || len(b.spans) >= batchBytes
}

// queue holds batches, of which the first is the oldest. What is being sent counts as well.
type queue struct {
	batches      []*batch
	spans, bytes int
}

// add takes the spans of a request, or says that there is no room for them.
func (q *queue) add(to *target, s *encoder) bool {
	if q.spans+s.count > queueSpans || q.bytes+len(s.spans) > queueBytes {
		return false
	}
	q.spans += s.count
	q.bytes += len(s.spans)
	var last *batch
	if n := len(q.batches); n > 0 {
		last = q.batches[n-1]
	}
	if last == nil || last.to != to || last.full() {
		if last != nil {
			last.sealed = true
		}
		last = &batch{to: to, born: time.Now()}
		q.batches = append(q.batches, last)
	}
	last.spans = append(last.spans, s.spans...)
	last.count += s.count
	return true
}

// first gives the oldest batch; nil: nothing waits.
func (q *queue) first() *batch {
	if len(q.batches) == 0 {
		return nil
	}
	return q.batches[0]
}

// full tells that there is no use in waiting before the first is sent.
func (q *queue) full() bool { return len(q.batches) > 0 && q.batches[0].full() }

// remove takes away the oldest.
func (q *queue) remove() {
	b := q.batches[0]
	q.spans -= b.count
	q.bytes -= len(b.spans)
	q.batches[0] = nil
	if q.batches = q.batches[1:]; len(q.batches) == 0 {
		q.batches = nil
	}
}
