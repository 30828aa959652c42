package otlp

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/trace"
)

// How long spans are tried to be sent.
const (
	answerTime = 10 * time.Second // for all of one request to a collector
	retryTime  = time.Minute      // from the first request with a batch to the beginning of the last
	firstPause = time.Second      // before the second; it doubles
	maxPause   = 30 * time.Second // also where the collector asks for more by Retry-After
	maxAnswer  = 64 << 10         // of an answer's body, of which more is not read
)

// result is what became of one request to a collector.
type result struct {
	code     routing.Code // empty: it took the spans
	what     string       // in words, for people
	rejected int          // spans of those that it took that it did not take
	reason   string       // why they are dropped, if they are
	again    bool         // it may take them later
	after    time.Duration
}

// deliver sends a batch, again where that may help, and counts what became of it.
func (e *Exporter) deliver(b *batch) {
	begun, pause := time.Now(), firstPause
	for {
		last := e.isClosing() || !e.refresh(b)
		if err := b.to.ready(); err != nil {
			e.drop(b, result{code: routing.InvalidValue, what: err.Error(), reason: droppedInvalid})
			return
		}
		r := e.post(b)
		if r.code == "" {
			rejected := min(r.rejected, b.count)
			e.sent.Add(b.count - rejected)
			e.dropped[droppedRefused].Add(rejected)
			e.trouble.say(e.log, b.to, r, rejected)
			return
		}
		wait := min(max(pause/2+rand.N(pause), r.after), maxPause)
		pause = min(2*pause, maxPause)
		if !r.again || last || time.Since(begun)+wait > retryTime {
			e.drop(b, r)
			return
		}
		e.trouble.say(e.log, b.to, r, 0)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-e.closing: // the last try is made at once
			timer.Stop()
		}
	}
}

// refresh has a batch sent with the headers and authorities that are settled now for its collector. It gives false where the settings name
// another by now: that one's spans wait.
func (e *Exporter) refresh(b *batch) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	newest := e.targets[0]
	if newest.of.Endpoint == b.to.of.Endpoint {
		b.to = newest
	}
	return b.to == newest
}

func (e *Exporter) drop(b *batch, r result) {
	reason := r.reason
	if e.life.Err() != nil {
		reason = droppedShutdown
	}
	e.dropped[reason].Add(b.count)
	e.trouble.say(e.log, b.to, r, b.count)
}

// post sends a batch once.
func (e *Exporter) post(b *batch) result {
	ctx, cancel := context.WithTimeout(e.life, answerTime)
	defer cancel()
	head := e.envelope.head(len(b.spans))
	body := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(head), bytes.NewReader(b.spans))), nil
	}
	request := (&http.Request{
		Method: http.MethodPost, URL: b.to.url, Host: b.to.url.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		GetBody: body, ContentLength: int64(len(head) + len(b.spans)),
	}).WithContext(ctx)
	request.Body, _ = body()
	// It is not sent, and has the transport repeat what came to nothing as the collector had closed the connection meanwhile.
	request.Header["Idempotency-Key"] = nil
	for name, value := range b.to.of.Headers {
		request.Header.Set(name, value)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("User-Agent", e.agent)
	// Where the way to the collector is traced itself, that makes no spans, which would have to be sent as well.
	request.Header.Set(trace.Header, string(trace.New(false).AppendHeader(nil)))

	answer, err := b.to.transport.RoundTrip(request) // which follows no redirects: they would take the headers elsewhere
	if err != nil {
		return failure(err)
	}
	defer answer.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer)) // the status counts; it has come
	if answer.StatusCode/100 == 2 {
		return result{rejected: rejected(said)}
	}
	return refusal(answer)
}

// refusal is an answer with another status than those of success.
func refusal(answer *http.Response) result {
	r := result{code: routing.UpstreamRefusal, what: "it answered with status " + strconv.Itoa(answer.StatusCode), reason: droppedRefused}
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout: // as OTLP lists them
		r.again, r.after = true, retryAfter(answer.Header.Get("Retry-After"))
	case http.StatusUnauthorized, http.StatusForbidden:
		r.what += ": the Secret of headers has to say who calls"
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		r.what += ": the endpoint must take OTLP over HTTP, usually at port 4318"
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		r.what += ", which is not followed: make the endpoint where it leads"
	}
	return r
}

// retryAfter reads a header, which has seconds or a date.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return time.Until(at)
	}
	return 0
}

// rejected reads ExportTraceServiceResponse.partial_success.rejected_spans. What is not that message rejects nothing.
func rejected(body []byte) int {
	var count int
	fields(body, func(field protowire.Number, partial []byte, _ uint64) {
		if field == 1 {
			fields(partial, func(field protowire.Number, _ []byte, value uint64) {
				if field == 1 {
					count = int(min(value, queueSpans))
				}
			})
		}
	})
	return count
}

// fields reads a message up to its first fault.
func fields(message []byte, each func(field protowire.Number, bytes []byte, varint uint64)) {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		var value []byte
		var varint uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(field, kind, message)
		}
		if n < 0 {
			return
		}
		each(field, value, varint)
		message = message[n:]
	}
}
