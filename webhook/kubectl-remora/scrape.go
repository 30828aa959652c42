package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sample is one line of what a pod counts.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// errNotMetrics says that a pod answers something else.
var errNotMetrics = errors.New("it answers something else than metrics")

// maxLabels is more than any series has.
const maxLabels = 64

// samples reads Prometheus' text form. The lines of other names than those wanted are passed over before they are taken apart. A line that
// nobody can read is an error: half of the figures would be figures of something else.
func samples(text []byte, wanted func(name string) bool, each func(sample)) error {
	for number := 1; len(text) > 0; number++ {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		end := bytes.IndexAny(line, "{ \t")
		if end <= 0 {
			return fmt.Errorf("%w: line %d has no value", errNotMetrics, number)
		}
		if name := string(line[:end]); wanted(name) {
			s, err := parseSample(name, string(line[end:]))
			if err != nil {
				return fmt.Errorf("%w: line %d, of %s: %w", errNotMetrics, number, name, err)
			}
			each(s)
		}
	}
	return nil
}

func parseSample(name, rest string) (sample, error) {
	s := sample{name: name}
	if strings.HasPrefix(rest, "{") {
		var err error
		if s.labels, rest, err = parseLabels(rest[1:]); err != nil {
			return s, err
		}
	}
	words := strings.Fields(rest)
	if len(words) == 0 || len(words) > 2 { // the second is a time
		return s, errors.New("it has no value")
	}
	value, err := strconv.ParseFloat(words[0], 64)
	if err != nil {
		return s, errors.New("its value is no number")
	}
	s.value = value
	return s, nil
}

func parseLabels(text string) (labels map[string]string, rest string, err error) {
	labels = map[string]string{}
	for {
		text = strings.TrimLeft(text, " ,")
		if after, done := strings.CutPrefix(text, "}"); done {
			return labels, after, nil
		}
		name, after, found := strings.Cut(text, "=")
		if !found || !strings.HasPrefix(after, `"`) || len(labels) == maxLabels {
			return nil, "", errors.New("its labels cannot be read")
		}
		value, after, err := parseValue(after[1:])
		if err != nil {
			return nil, "", err
		}
		labels[name], text = value, after
	}
}

// parseValue reads up to the quotation mark that ends a label's value.
func parseValue(text string) (value, rest string, err error) {
	end := strings.IndexAny(text, `"\`)
	if end >= 0 && text[end] == '"' {
		return text[:end], text[end+1:], nil
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], nil
		case text[i] == '\\' && i+1 < len(text):
			i++
			if text[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(text[i])
		}
	}
	return "", "", errors.New("a label has no end")
}

// series is what calls have in common, of what top shows apart.
type series struct{ provider, model string }

// tally is what one process has counted of a series since it began.
type tally struct {
	requests, failed float64
	exact, estimated tokens
	cost             map[string]float64 // by currency
	first            map[float64]float64
}

// tokens are those that providers reported, or those that sidecars estimated in their stead: the two never count the same token.
type tokens struct{ input, output float64 }

func (t tokens) plus(other tokens) tokens {
	return tokens{t.input + other.input, t.output + other.output}
}

func (t tokens) scaled(by float64) tokens { return tokens{t.input * by, t.output * by} }

// since is what t has grown by.
func (t tokens) since(before tokens) tokens {
	return tokens{more(before.input, t.input), more(before.output, t.output)}
}

// reading is what one process has counted.
type reading struct {
	calls    map[series]*tally
	inFlight float64
}

// The series that are read.
const (
	durationCount = "gen_ai_client_operation_duration_seconds_count"
	tokenSum      = "gen_ai_client_token_usage_sum"
	firstBucket   = "gen_ai_client_operation_time_to_first_chunk_seconds_bucket"
	costTotal     = "remora_cost_total"
	inFlight      = "remora_requests_in_flight"
)

// maxSeries is more than a sidecar has: its models and providers are bounded.
const maxSeries = 10_000

func isRead(name string) bool {
	switch name {
	case durationCount, tokenSum, firstBucket, costTotal, inFlight:
		return true
	}
	return false
}

func read(text []byte) (*reading, error) {
	r := &reading{calls: map[series]*tally{}}
	var fault error
	err := samples(text, isRead, func(s sample) {
		if s.name == inFlight {
			r.inFlight += s.value
			return
		}
		id := series{s.labels["provider"], s.labels["gen_ai_request_model"]}
		if s.name == costTotal {
			id.model = s.labels["model"]
		}
		t := r.calls[id]
		if t == nil {
			if len(r.calls) == maxSeries {
				fault = fmt.Errorf("%w: it has more than %d models", errNotMetrics, maxSeries)
				return
			}
			t = &tally{cost: map[string]float64{}, first: map[float64]float64{}}
			r.calls[id] = t
		}
		switch s.name {
		case durationCount:
			t.requests += s.value
			if s.labels["error_type"] != "" {
				t.failed += s.value
			}
		case tokenSum:
			counted := &t.exact
			if s.labels["precision"] == "estimated" {
				counted = &t.estimated
			}
			if s.labels["gen_ai_token_type"] == "input" {
				counted.input += s.value
			} else {
				counted.output += s.value
			}
		case firstBucket:
			if limit, err := strconv.ParseFloat(s.labels["le"], 64); err == nil && !math.IsNaN(limit) {
				t.first[limit] += s.value
			}
		case costTotal:
			t.cost[s.labels["currency"]] += s.value
		}
	})
	if err == nil {
		err = fault
	}
	return r, err
}
