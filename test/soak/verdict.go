package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// verdict compares what the sidecar says with what the provider knows, and what is left with what was there.
type verdict struct {
	w          *world
	base, last levels
	wrong      []string
}

func (v *verdict) fail(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// judge prints the figures. Its error says all that was wrong.
func (v *verdict) judge(ctx context.Context, out io.Writer) error {
	s, err := v.w.end(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	v.w.counts.table(table)
	v.failures(table, s)
	v.tokens(table, s)
	v.estimates(table, s)
	v.accounts(table, s)
	if err := table.Flush(); err != nil {
		return err
	}
	if !v.last.within(v.base) {
		v.fail("something leaks: at rest there are %s, where %s could be", v.last, v.base)
	}
	v.wrong = append(v.wrong, v.w.counts.wrongs()...)
	if len(v.wrong) > 0 {
		return errors.New(strings.Join(v.wrong, "\n      "))
	}
	if v.w.settings.calls > 0 {
		fmt.Fprintf(out, "\nNo token is missing in metrics, access log and traces. To choose all of it again: -seed %d\n", v.w.settings.seed)
		return nil
	}
	fmt.Fprintf(out, "\nNothing has leaked, and no token is missing. To choose all of it again: -seed %d\n", v.w.settings.seed)
	return nil
}

func (v *verdict) failures(table io.Writer, s samples) {
	fmt.Fprintln(table, "\nthe sidecar's failures\tnumber\t")
	for _, series := range slices.Sorted(maps.Keys(s)) {
		if code, ok := strings.CutPrefix(series, `remora_failures_total{code="`); ok {
			fmt.Fprintf(table, "%s\t%.0f\t\n", strings.TrimSuffix(code, `"}`), s[series])
			if s[series] > 0 && !slices.Contains(expected, routing.Code(strings.TrimSuffix(code, `"}`))) {
				v.fail("the sidecar counted %.0f failures with the code %s", s[series], strings.TrimSuffix(code, `"}`))
			}
		}
	}
}

// expected are the failures that have their cause in what the apps and the provider do.
var expected = []routing.Code{
	routing.ClientGone, routing.FirstTokenTimeout, routing.IdleTimeout, routing.UpstreamInvalid, routing.UpstreamReset,
	routing.RetryBudgetSpent, routing.BackendEjected,
}

// parts are the kinds of tokens: how the sidecar calls them, and where the provider has them.
var parts = []struct {
	name, metric, label string
	of                  func(llmserver.Tokens) int
}{
	{"input", "remora_tokens_total", `type="input"`, func(t llmserver.Tokens) int { return t.Input }},
	{"output", "remora_tokens_total", `type="output"`, func(t llmserver.Tokens) int { return t.Output }},
	{"cached", "remora_token_parts_total", `type="cached"`, func(t llmserver.Tokens) int { return t.Cached }},
	{"reasoning", "remora_token_parts_total", `type="reasoning"`, func(t llmserver.Tokens) int { return t.Reasoning }},
}

// tokens compares sums to the token.
func (v *verdict) tokens(table io.Writer, s samples) {
	fmt.Fprintln(table, "\ntokens\tthe provider reported\tthe sidecar counted")
	for _, host := range []string{steady, azure, blunt, shaky, spare, left} {
		tally := v.w.provider.Tally(host)
		for _, part := range parts {
			labels := []string{provider(host), part.label}
			if part.metric == "remora_tokens_total" {
				labels = append(labels, `precision="exact"`)
			}
			reported, counted := part.of(tally.Reported), s.sum(part.metric, labels...)
			fmt.Fprintf(table, "%s %s\t%d\t%d\n", strings.TrimSuffix(host, ".example.com"), part.name, reported, counted)
			// What the provider has sent to an app that leaves may never have been read.
			if counted != reported && (host != left || counted > reported) {
				v.fail("%s: %d tokens of %s were reported, and %d counted", host, reported, part.name, counted)
			}
		}
		silent, unreported := tally.Silent.Answers, s.sum("remora_answers_without_usage_total", provider(host), `reason="unreported"`)
		if host != left && silent != unreported {
			v.fail("%s: %d answers came without usage, and %d were counted", host, silent, unreported)
		}
	}
	for _, host := range []string{steady, azure} {
		if t := v.w.provider.Tally(host); t.Reported.Output == 0 || t.Reported.Cached == 0 || t.Reported.Reasoning == 0 || t.Cut.Answers > 0 {
			v.fail("%s: %+v is not what was to be tried", host, t)
		}
	}
}

// estimates says how far from the truth the estimates of cut answers are.
func (v *verdict) estimates(table io.Writer, s samples) {
	fmt.Fprintln(table, "\ncut answers\tthe provider's tokens\tthe sidecar's estimate")
	for _, host := range []string{shaky, spare, left} {
		t := v.w.provider.Tally(host)
		cut := s.sum("remora_answers_without_usage_total", provider(host), `reason="cut"`)
		fmt.Fprintf(table, "%s\t%d answers\t%d answers\n", strings.TrimSuffix(host, ".example.com"), t.Cut.Answers, cut)
		for _, part := range parts[:2] {
			exact := s.sum(part.metric, provider(host), part.label, `precision="exact"`)
			truth := part.of(t.Cut) + part.of(t.Reported) - exact // for an app that left, also what was reported in vain
			estimate := s.sum(part.metric, provider(host), part.label, `precision="estimated"`)
			off := "-"
			if truth > 0 {
				off = fmt.Sprintf("%+.0f %%", 100*float64(estimate-truth)/float64(truth))
			}
			fmt.Fprintf(table, "  %s\t%d\t%d (%s)\n", part.name, truth, estimate, off)
		}
	}
	if v.w.provider.Tally(left).Cut.Answers == 0 || v.w.provider.Tally(shaky).Cut.Answers == 0 {
		v.fail("no answer was cut, so nothing was tried")
	}
}

func provider(host string) string {
	return `provider="default/` + strings.TrimSuffix(host, ".example.com") + `"`
}
