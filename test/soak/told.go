package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"remora.dev/remora/test/collector"
)

// spent is what one way of telling says of a provider's tokens.
type spent struct {
	Requests                        int
	Input, Output                   int
	Cached, Reasoning               int
	EstimatedInput, EstimatedOutput int
}

// exact gives the tokens that were reported, in the order of parts.
func (s *spent) exact() [4]int { return [...]int{s.Input, s.Output, s.Cached, s.Reasoning} }

// told is what the requests were told to have cost, by provider as NAMESPACE/NAME.
type told map[string]*spent

func (t told) of(provider string) *spent {
	if t[provider] == nil {
		t[provider] = &spent{}
	}
	return t[provider]
}

func (t told) requests() (n int) {
	for _, s := range t {
		n += s.Requests
	}
	return n
}

// accessLog reads the sidecar's standard output as it comes, and keeps the sums.
type accessLog struct {
	mu      sync.Mutex
	rest    []byte // of a line
	told    told
	missing int
	wrong   []string

	retried, elsewhere, cut int // requests that were tried again, at another provider, or ended early
}

// Write takes what the sidecar has written. It never fails: a sidecar that could not write would be another than the one to be tried.
func (l *accessLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte{'\n'})
		if !whole {
			l.rest = append(l.rest[:0], l.rest...)
			return len(p), nil
		}
		if err := l.line(line); err != nil && len(l.wrong) < shown {
			l.wrong = append(l.wrong, fmt.Sprintf("%v in the line %.500s", err, line))
		}
		l.rest = rest
	}
}

func (l *accessLog) line(text []byte) error {
	var line struct {
		Logger     string
		Time       string
		Provider   string
		Retries    int
		Fallbacks  int
		CutBy      string `json:"cut_by"`
		Missing    int    `json:"missing_lines"`
		Input      *int   `json:"request_prompt_tokens"`
		Output     *int   `json:"request_completion_tokens"`
		Cached     int    `json:"cached_tokens"`
		Reasoning  int    `json:"reasoning_tokens"`
		MoreInput  int    `json:"estimated_prompt_tokens"`
		MoreOutput int    `json:"estimated_completion_tokens"`
	}
	if err := json.Unmarshal(text, &line); err != nil {
		return err
	}
	if line.Logger != "access" || line.Time == "" {
		return fmt.Errorf("logger %q, time %q", line.Logger, line.Time)
	}
	if l.missing += line.Missing; line.Missing > 0 {
		return nil
	}
	s := l.told.of(line.Provider)
	s.Requests++
	for _, of := range []struct {
		count *int
		is    bool
	}{{&l.retried, line.Retries > 0}, {&l.elsewhere, line.Fallbacks > 0}, {&l.cut, line.CutBy != ""}} {
		if of.is {
			*of.count++
		}
	}
	if line.Input != nil && line.Output != nil {
		s.Input, s.Output = s.Input+*line.Input, s.Output+*line.Output
	}
	s.Cached, s.Reasoning = s.Cached+line.Cached, s.Reasoning+line.Reasoning
	s.EstimatedInput, s.EstimatedOutput = s.EstimatedInput+line.MoreInput, s.EstimatedOutput+line.MoreOutput
	return nil
}

// toldBySpans sums up the spans of requests; those of attempts say nothing of tokens.
func toldBySpans(spans []collector.Span) told {
	t := told{}
	for i := range spans {
		s := &spans[i]
		if s.Kind != "SERVER" {
			continue
		}
		sum := t.of(s.Text("remora.provider"))
		sum.Requests++
		for _, part := range []struct {
			of  *int
			key string
		}{
			{&sum.Input, "gen_ai.usage.input_tokens"}, {&sum.Output, "gen_ai.usage.output_tokens"}, {&sum.Cached, "gen_ai.usage.cache_read.input_tokens"},
			{&sum.Reasoning, "gen_ai.usage.reasoning.output_tokens"},
			{&sum.EstimatedInput, "remora.usage.estimated_input_tokens"}, {&sum.EstimatedOutput, "remora.usage.estimated_output_tokens"},
		} {
			*part.of += int(s.Int(part.key))
		}
	}
	return t
}

// accounts compares what log and traces told with the metrics, to the token, estimates too. The metrics are compared with the provider. By
// default only a share of the requests has spans, of which no sum says anything.
func (v *verdict) accounts(table io.Writer, s samples) {
	log := &v.w.log
	log.mu.Lock()
	defer log.mu.Unlock()
	v.wrong = append(v.wrong, log.wrong...)
	if log.missing > 0 || s.sum("remora_log_lines_dropped_total") > 0 {
		v.fail("%d lines of the access log are missing", max(log.missing, s.sum("remora_log_lines_dropped_total")))
	}
	ways := map[string]told{"access log": log.told}
	names := []string{"access log"}
	if v.w.settings.calls > 0 {
		ways["traces"], names = toldBySpans(v.w.collector.Spans()), append(names, "traces")
		if n := s.sum("remora_spans_dropped_total"); n > 0 {
			v.fail("%d spans were dropped", n)
		}
	}
	for _, fault := range v.w.collector.Faults() {
		v.fail("what was sent to the collector: %s", fault)
	}
	fmt.Fprintf(table, "\ntokens\tmetrics\t%s\n", strings.Join(names, "\t"))
	for _, host := range []string{steady, azure, blunt, shaky, spare, left} {
		name := strings.TrimSuffix(host, ".example.com")
		for i, part := range parts {
			labels := []string{provider(host), part.label}
			if part.metric == "remora_tokens_total" {
				v.compare(table, name+" "+part.name+", estimated", s.sum(part.metric, append(labels, `precision="estimated"`)...), names, func(way string) int {
					sum := ways[way].of("default/" + name)
					return [...]int{sum.EstimatedInput, sum.EstimatedOutput}[i]
				})
				labels = append(labels, `precision="exact"`)
			}
			v.compare(table, name+" "+part.name, s.sum(part.metric, labels...), names, func(way string) int { return ways[way].of("default/" + name).exact()[i] })
		}
	}
	for _, way := range names {
		fmt.Fprintf(table, "requests in %s\t%d\n", way, ways[way].requests())
	}
	fmt.Fprintf(table, "of them retried\t%d\nof them at another provider then\t%d\nof them cut\t%d\n", log.retried, log.elsewhere, log.cut)
	if log.retried == 0 || log.elsewhere == 0 || log.cut == 0 {
		v.fail("no request was retried, fell back or was cut, so nothing was tried")
	}
	if v.w.settings.calls > 0 && ways["traces"].requests() != log.told.requests() {
		v.fail("%d requests are in the access log, and %d in the traces", log.told.requests(), ways["traces"].requests())
	}
}

func (v *verdict) compare(table io.Writer, what string, counted int, ways []string, of func(way string) int) {
	fmt.Fprintf(table, "%s\t%d", what, counted)
	for _, way := range ways {
		fmt.Fprintf(table, "\t%d", of(way))
		if of(way) != counted {
			v.fail("%s: %d by the metrics, and %d by the %s", what, counted, of(way), way)
		}
	}
	fmt.Fprintln(table)
}
