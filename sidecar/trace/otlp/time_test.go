package otlp

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"remora.dev/remora/test/collector"
)

func TestSpansWaitForOthersFiveSecondsAndNoLonger(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, n *network) {
		s := to(c.URL)
		r.Record(sampled(), s)
		<-time.After(batchTime - time.Millisecond)
		r.Record(sampled(), s)
		synctest.Wait()
		if n.dials() != 0 {
			r.t.Fatal("the first is sent without the second")
		}
		<-time.After(time.Millisecond)
		synctest.Wait()
		if requests := c.Requests(); len(requests) != 1 || requests[0].Spans != 2*spansOfSampled {
			r.t.Fatalf("%+v", requests)
		}
		r.counts(2*spansOfSampled, "", 0)
		if r.logged() != "" {
			r.t.Errorf("nothing is wrong, and the log says %s", r.logged())
		}
	})
}

func TestAFullBatchIsSentAtOnce(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		s := to(c.URL)
		for range batchSpans / spansOfSampled {
			r.Record(sampled(), s)
		}
		synctest.Wait()
		r.counts(batchSpans, "", 0)
	})
}

func TestTheGoroutineEndsWhenNothingWaits(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		for range 3 {
			r.Record(sampled(), to(c.URL))
			<-time.After(batchTime)
			synctest.Wait()
			r.inside(func() {
				if r.ended != nil || r.queue.batches != nil || r.queue.spans != 0 || r.queue.bytes != 0 {
					r.t.Errorf("there is still %+v", r.queue)
				}
			})
		}
	})
}

func TestACollectorThatIsBusyIsAskedAgainWhenItSays(t *testing.T) {
	f := func(status http.HandlerFunc, least, most time.Duration) {
		t.Helper()
		bubble(t, func(r *rig, c *collector.Collector, _ *network) {
			c.Instead(status)
			r.Record(sampled(), to(c.URL))
			<-time.After(batchTime)
			synctest.Wait()
			if n := len(c.Requests()); n != 1 {
				r.t.Fatalf("%d requests", n)
			}
			c.Instead(nil)
			begun := time.Now()
			if err := c.Await(r.t.Context(), func() bool { return len(c.Spans()) > 0 }); err != nil {
				r.t.Fatal(err)
			}
			if took := time.Since(begun); took < least || took > most {
				r.t.Errorf("asked again after %v, want %v to %v", took, least, most)
			}
			synctest.Wait()
			r.counts(spansOfSampled, "", 0)
		})
	}
	f(status(429), firstPause/2, firstPause*3/2)
	f(status(502), firstPause/2, firstPause*3/2)
	f(status(504), firstPause/2, firstPause*3/2)
	f(status(503, "Retry-After", "7"), 7*time.Second, 7*time.Second)
	f(status(503, "Retry-After", "0"), firstPause/2, firstPause*3/2)
	f(status(503, "Retry-After", "-5"), firstPause/2, firstPause*3/2)
	f(status(503, "Retry-After", "soon"), firstPause/2, firstPause*3/2)
	f(status(429, "Retry-After", "86400"), maxPause, maxPause)
	f(status(429, "Retry-After", "99999999999999999999999999"), firstPause/2, firstPause*3/2)
	f(status(429, "Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"), maxPause, maxPause)
	f(status(429, "Retry-After", "Mon, 01 Jan 1900 00:00:00 GMT"), firstPause/2, firstPause*3/2)
}

func TestACollectorThatStaysAwayCostsSpansAfterAMinute(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, n *network) {
		n.leave(true)
		r.Record(sampled(), to(c.URL))
		<-time.After(batchTime + retryTime)
		synctest.Wait()
		r.counts(0, droppedUnreachable, spansOfSampled)
		if n.dials() < 4 || n.dials() > 8 {
			r.t.Errorf("it was called %d times", n.dials())
		}
		if said := r.logged(); strings.Count(said, "\n") != 0 || !strings.Contains(said, "ConnectFailure") {
			r.t.Errorf("the log says\n%s", said)
		}
		n.leave(false)
		r.Record(sampled(), to(c.URL))
		<-time.After(batchTime)
		synctest.Wait()
		r.counts(spansOfSampled, droppedUnreachable, spansOfSampled)
		if said := r.logged(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "takes spans again") {
			r.t.Errorf("the log says\n%s", said)
		}
	})
}

func TestACollectorThatComesAndGoesDoesNotFillTheLog(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		s := to(c.URL)
		for i := range 80 {
			if c.Instead(nil); i%2 == 0 {
				c.Instead(status(400))
			}
			for range batchSpans / spansOfSampled {
				r.Record(sampled(), s)
			}
			synctest.Wait()
			<-time.After(time.Second / 4)
		}
		if lines := strings.Count(r.logged(), "\n") + 1; lines > 20/10+1 {
			r.t.Errorf("%d lines in 20 seconds", lines)
		}
	})
}

func TestWhatIsSlowIsGivenUpAndTheQueueStaysBounded(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		c.Instead(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
		s := to(c.URL)
		const records = 10_000
		for range records {
			r.Record(sampled(), s)
		}
		r.inside(func() {
			held := 0
			for _, b := range r.queue.batches {
				held += cap(b.spans)
			}
			if r.queue.spans > queueSpans || r.queue.bytes > queueBytes || held > 2*queueBytes {
				r.t.Errorf("%d spans wait in %d bytes, for which %d are held", r.queue.spans, r.queue.bytes, held)
			}
		})
		<-time.After(time.Hour)
		synctest.Wait()
		lost := r.counted.SpansDropped(droppedQueueFull).Get() + r.counted.SpansDropped(droppedUnreachable).Get()
		if lost != records*spansOfSampled {
			r.t.Errorf("%d of %d spans are counted as dropped", lost, records*spansOfSampled)
		}
		if said := r.logged(); !strings.Contains(said, "DeadlineExceeded") {
			r.t.Errorf("the log says\n%s", said)
		}
		r.inside(func() {
			if r.ended != nil || r.queue.spans != 0 || r.queue.bytes != 0 {
				r.t.Errorf("%d spans wait", r.queue.spans)
			}
		})
	})
}

func TestWithAnotherEndpointTheOldOneIsTriedOnceMoreAndTheNewOneAtOnce(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		c.Instead(status(503))
		old := to(c.URL)
		r.Record(sampled(), old)
		<-time.After(batchTime)
		synctest.Wait()
		c.Instead(func(w http.ResponseWriter, q *http.Request) {
			if strings.HasPrefix(q.Host, "127.0.0.1") {
				w.WriteHeader(503)
			}
		})
		r.Record(sampled(), to("http://new.example:4318"))
		<-time.After(2*firstPause + batchTime)
		synctest.Wait()
		r.counts(spansOfSampled, droppedRefused, spansOfSampled)
	})
}

func TestNewHeadersAreUsedForWhatWaitsAlready(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		old, new := to(c.URL), to(c.URL)
		old.Traces.Headers = map[string]string{"Authorization": "old"}
		new.Traces.Headers = map[string]string{"Authorization": "new"}
		r.Record(sampled(), old)
		r.Record(sampled(), new)
		r.Record(sampled(), old) // of a request that began before the change
		<-time.After(2 * batchTime)
		synctest.Wait()
		for _, request := range c.Requests() {
			if got := request.Header.Get("Authorization"); got != "new" {
				r.t.Errorf("sent with %s", got)
			}
		}
		r.counts(3*spansOfSampled, "", 0)
	})
}

func TestTheEndSendsWhatWaits(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		r.Record(sampled(), to(c.URL))
		begun := time.Now()
		r.flush()
		if took := time.Since(begun); took != 0 {
			r.t.Errorf("it took %v", took)
		}
		r.counts(spansOfSampled, "", 0)
		r.Record(sampled(), to(c.URL))
		r.counts(spansOfSampled, droppedShutdown, spansOfSampled)
	})
}

func TestTheEndWaitsForNoCollectorLongerThanItMay(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		c.Instead(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
		for range batchSpans {
			r.Record(sampled(), to(c.URL))
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		r.Shutdown(ctx)
		r.Shutdown(ctx)
		if took := time.Since(begun); took != time.Second {
			r.t.Errorf("it took %v", took)
		}
		r.counts(0, droppedShutdown, batchSpans*spansOfSampled)
	})
}

func TestTheEndCutsAPauseShort(t *testing.T) {
	bubble(t, func(r *rig, c *collector.Collector, _ *network) {
		c.Instead(status(503, "Retry-After", "30"))
		r.Record(sampled(), to(c.URL))
		<-time.After(batchTime)
		synctest.Wait()
		c.Instead(nil)
		begun := time.Now()
		r.flush()
		if took := time.Since(begun); took != 0 {
			r.t.Errorf("it took %v", took)
		}
		r.counts(spansOfSampled, "", 0)
	})
}

// inside looks at the exporter's own state.
func (r *rig) inside(look func()) {
	r.Exporter.mu.Lock()
	defer r.Exporter.mu.Unlock()
	look()
}
