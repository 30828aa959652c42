package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"remora.dev/remora/test/bench/figures"
)

var (
	requestCPU = figures.Compare("CPU per request, 1 KB prompt", "µs", 1)
	streamCPU  = figures.Compare("CPU per stream of 30 events", "µs", 1)
	idleMemory = figures.Alone("resident memory, idle", "MiB", 1)
	usedMemory = figures.Alone("resident memory, after all of this", "MiB", 1)
	scrapeSize = figures.Alone("size of a scrape", "KiB", 1)
	scrapeTime = figures.Alone("time of a scrape, p50", "ms", 2)
	scrapeCPU  = figures.Alone("CPU of a scrape", "ms", 2)
	costs      = []figures.Figure{requestCPU, streamCPU, idleMemory, usedMemory}
	scrapes    = []figures.Figure{scrapeSize, scrapeTime, scrapeCPU}
)

func named(models int) string { return fmt.Sprintf("models: %d", models) }

func (p plan) measure(ctx context.Context, all []*running, progress io.Writer) (figures.Sheet, error) {
	s := figures.Sheet{}
	select {
	case <-time.After(p.settle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	memory := func(f figures.Figure) error {
		for _, r := range all {
			m, err := r.Resident()
			if err != nil {
				return r.Explain(err)
			}
			s.Add(r.Name, f, m.All/(1<<20))
		}
		return nil
	}
	if err := memory(idleMemory); err != nil {
		return nil, err
	}
	for round := range p.rounds {
		for _, c := range []struct {
			figure figures.Figure
			ask    ask
			count  int
		}{{requestCPU, request("m", ""), p.requests}, {streamCPU, request("m", "chunks=30"), p.streams}} {
			fmt.Fprintf(progress, "round %d of %d: %s:", round+1, p.rounds, c.figure.Label)
			for i := range all {
				r := all[(i+round)%len(all)] // what one leaves behind in caches is not always the same one's advantage
				each, err := p.through(ctx, r, c.ask, c.count)
				if err != nil {
					return nil, r.Explain(err)
				}
				s.Add(r.Name, c.figure, each)
				fmt.Fprintf(progress, " %s %.1f", r.Name, each)
			}
			fmt.Fprintln(progress)
		}
	}
	if err := memory(usedMemory); err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Name == telling {
			return s, p.scrape(ctx, r, s)
		}
	}
	return s, nil
}

// through returns the processor time, in microseconds, that a contestant spent on each of count requests.
func (p plan) through(ctx context.Context, r *running, a ask, count int) (float64, error) {
	l := openLoad(r.address)
	defer l.close()
	// A tenth first, so that connections, pools and caches are warm on both sides.
	if err := l.requests(ctx, a, p.connections, max(count/10, p.connections)); err != nil {
		return 0, err
	}
	before, err := r.Used()
	if err != nil {
		return 0, err
	}
	if err := l.requests(ctx, a, p.connections, count); err != nil {
		return 0, err
	}
	after, err := r.Used()
	return float64((after - before).Nanoseconds()) / 1000 / float64(count), err
}

// scrape measures what Prometheus asks for, with more and more models that apps have asked for.
func (p plan) scrape(ctx context.Context, r *running, s figures.Sheet) error {
	l := openLoad(r.address)
	defer l.close()
	for _, models := range p.models {
		for i := range models {
			// As many as the first ones have had: the series are what counts, not how often.
			for _, fault := range []string{"", "chunks=30"} {
				if err := l.requests(ctx, request(modelOf(i), fault), 1, 1); err != nil {
					return r.Explain(err)
				}
			}
		}
		before, err := r.Used()
		if err != nil {
			return err
		}
		for range p.scrapes {
			begun := time.Now()
			size, err := scraped(ctx, r.health)
			if err != nil {
				return r.Explain(err)
			}
			s.Add(named(models), scrapeTime, figures.Milliseconds(time.Since(begun)))
			s.Add(named(models), scrapeSize, float64(size)/1024)
		}
		after, err := r.Used()
		if err != nil {
			return err
		}
		s.Add(named(models), scrapeCPU, figures.Milliseconds(after-before)/float64(p.scrapes))
	}
	return nil
}

// modelOf gives the name of a model; the first is the one that everything was measured with.
func modelOf(i int) string {
	if i == 0 {
		return "m"
	}
	return fmt.Sprintf("some-model-%d", i)
}

func scraped(ctx context.Context, address string) (size int64, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("/metrics: %s", answer.Status)
	}
	return io.Copy(io.Discard, answer.Body)
}
