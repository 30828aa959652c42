package admin

import (
	"bytes"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/metrics"
)

// maxTexts is how many bytes of metrics may be on their way to readers, where there is more than one text.
const maxTexts = 4 << 20

// scrapes gives metrics to whoever asks. Each reader gets a text of its own moment, but where slow readers have many of them already: then
// the newest of these is given to others too, as long as a reader may be slow. So neither memory nor work grows with the readers.
type scrapes struct {
	metrics *metrics.Set

	mu     sync.Mutex
	newest *page // nil: none is on its way
	size   int   // of all that are on their way
	last   int   // bytes of the last one
}

// A page is a text and how many are reading it.
type page struct {
	text    []byte
	made    time.Time
	readers int
}

// reading is one reader's place in a page.
type reading struct {
	bytes.Reader
	page *page
	of   *scrapes
}

func (s *scrapes) serve(c *fasthttp.RequestCtx) {
	c.SetContentType("text/plain; version=0.0.4; charset=utf-8")
	r := s.open()
	c.SetBodyStream(r, len(r.page.text))
}

func (s *scrapes) open() *reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.newest
	if p == nil || s.size+s.last <= maxTexts || time.Since(p.made) > requestTime {
		p = &page{text: s.metrics.Append(make([]byte, 0, s.last+s.last/8)), made: time.Now()}
		s.newest, s.last = p, len(p.text)
		s.size += len(p.text)
	}
	p.readers++
	r := &reading{page: p, of: s}
	r.Reset(p.text)
	return r
}

// Close gives back the reader's share.
func (r *reading) Close() error {
	s := r.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.page == nil {
		return nil
	}
	if r.page.readers--; r.page.readers == 0 {
		s.size -= len(r.page.text)
		if s.newest == r.page {
			s.newest = nil
		}
	}
	r.page = nil
	return nil
}
