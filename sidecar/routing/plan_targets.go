package routing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// phrase is a part of a sentence about what happens to calls.
type phrase struct {
	rank int
	text string
}

// fill is a phrase about what a provider gets filled in, or how it is reached.
type fill phrase

// differences says what is different for calls that one rule decided before and another one decides now.
func differences(before, after *Rule, h string) []phrase {
	rewritten := rewrittenIn(before, after)
	out := compareShares(before, after, rewritten)
	if before == nil || after == nil {
		return out
	}
	fills := compareFills(before, after, rewritten)
	for _, host := range slices.Sorted(maps.Keys(fills)) {
		for _, f := range fills[host] {
			out = append(out, phrase{f.rank, f.text + at(host, h)})
		}
	}
	out = append(out, compareFallback(before, after, rewritten)...)
	out = append(out, compareLimits(before, after)...)
	return out
}

func at(provider, host string) string {
	if provider == host {
		return ""
	}
	return " at " + provider
}

// compareRule compares what one rule does before and after.
func (c *comparison) compareRule(h, subject string, before, after *Rule) {
	rewritten := rewrittenIn(before, after)
	phrases := compareShares(before, after, rewritten)
	phrases = append(phrases, compareFallback(before, after, rewritten)...)
	phrases = append(phrases, compareLimits(before, after)...)
	fills := compareFills(before, after, rewritten)
	for _, host := range slices.Sorted(maps.Keys(fills)) {
		edited := slices.ContainsFunc(targetsOf(after), func(t *Target) bool {
			return t.outcome(rewritten).text == host && c.edit.providers.has(t.Endpoint.Value().Host)
		})
		if !edited {
			for _, f := range fills[host] {
				phrases = append(phrases, phrase{f.rank, f.text + at(host, h)})
			}
			continue
		}
		if c.fills[host] == nil {
			c.fills[host], c.rules[host] = map[fill]map[string]bool{}, map[string]bool{}
		}
		c.rules[host][after.Name] = true
		c.filled = c.filled || len(fills[host]) > 0
		for _, f := range fills[host] {
			if c.fills[host][f] == nil {
				c.fills[host][f] = map[string]bool{}
			}
			c.fills[host][f][after.Name] = true
		}
	}
	for _, p := range phrases {
		c.add(p.rank, subject, "%s", p.text)
	}
}

// reportFills tells of what an edited provider gets otherwise: once, and not for every host that uses it.
func (c *comparison) reportFills() {
	for host, fills := range c.fills {
		for f, rules := range fills {
			var not []string
			for name := range c.rules[host] {
				if !rules[name] {
					not = append(not, clip(cmp.Or(name, "others"), 40))
				}
			}
			slices.Sort(not)
			switch {
			case len(not) == 0:
				c.add(f.rank, host, "%s", f.text)
			case rules[""]:
				c.add(f.rank, host, "%s (but not for rule %s)", f.text, oneOf(not))
			default:
				for name := range rules {
					c.add(f.rank, host+", rule "+clip(name, 50), "%s", f.text)
				}
			}
		}
	}
}

// rewrittenIn gives the hosts that a rule sends to under several names.
func rewrittenIn(rules ...*Rule) map[string]bool {
	var out map[string]bool
	for _, r := range rules {
		first := map[string]string{}
		for _, t := range targetsOf(r) {
			host := t.Endpoint.Value().Host
			if known, ok := first[host]; ok && known != t.Authority {
				if out == nil {
					out = map[string]bool{}
				}
				out[host] = true
			}
			first[host] = t.Authority
		}
	}
	return out
}

// compareFills compares what the providers get that a rule uses before and after. There is an entry for
// each of them.
func compareFills(before, after *Rule, rewritten map[string]bool) map[string][]fill {
	was, out := map[string]*Target{}, map[string][]fill{}
	for _, t := range targetsOf(before) {
		was[t.outcome(rewritten).text] = t
	}
	for _, t := range targetsOf(after) {
		name := t.outcome(rewritten).text
		if b := was[name]; b != nil {
			if _, known := out[name]; !known {
				out[name] = b.fills(t)
			}
		}
	}
	return out
}

// fills says what is different about two uses of one provider.
func (t *Target) fills(now *Target) (out []fill) {
	add := func(rank int, format string, args ...any) {
		out = append(out, fill{rank, fmt.Sprintf(format, args...)})
	}
	was, is := t.Endpoint.Value(), now.Endpoint.Value()
	switch {
	case was.TLS && !is.TLS && now.Keyed():
		add(rankDanger, "calls leave in plain text from now on, to port %d, and the key with them", is.Port)
	case was.TLS && !is.TLS:
		add(rankDanger, "calls leave in plain text from now on, to port %d", is.Port)
	case !was.TLS && is.TLS:
		add(rankFill, "calls leave over TLS from now on, to port %d", is.Port)
	case !is.TLS:
	default:
		if was.ServerName != is.ServerName {
			add(rankFill, "the certificate must be that of %s instead of %s", hostText(is.ServerName), hostText(was.ServerName))
		}
		switch {
		case was.CABundle == is.CABundle:
		case is.CABundle == "":
			add(rankFill, "certificates are verified with the default trust again, not with a caBundle")
		case was.CABundle == "":
			add(rankFill, "certificates are verified with the caBundle only")
		default:
			add(rankFill, "certificates are verified with another caBundle")
		}
	}
	switch {
	case was.ClientCert == is.ClientCert && was.ClientKey == is.ClientKey:
	case is.ClientCert == "":
		add(rankFill, "no client certificate is presented any more")
	case was.ClientCert == "":
		add(rankFill, "a client certificate is presented from now on")
	default:
		add(rankFill, "another client certificate is presented")
	}
	if was.Port != is.Port && was.TLS == is.TLS {
		add(rankFill, "port %d instead of %d", is.Port, was.Port)
	}
	if t.Path != now.Path {
		add(rankFill, "path %s instead of %s", clip(now.Path, 55), clip(t.Path, 55))
	}
	if t.Authority != now.Authority && (rewrites(t) || rewrites(now)) {
		add(rankFill, "Host header %s instead of %s", hostText(now.Authority), hostText(t.Authority))
	}
	if t.Model != now.Model {
		add(rankFill, "%s instead of %s", modelText(now.Model), strings.TrimPrefix(modelText(t.Model), "model "))
	}
	switch {
	case now.Stream && !t.Stream:
		add(rankFill, "answers are streamed unless the app says otherwise")
	case t.Stream && !now.Stream:
		add(rankFill, "answers are no longer streamed unless the app asks for it")
	}
	if t.Query != now.Query {
		switch {
		case now.Query == "":
			add(rankFill, "no query parameters are filled in any more, instead of %s", clip(t.shownQuery, 55))
		case t.Query == "":
			add(rankFill, "query parameters %s from now on", clip(now.shownQuery, 55))
		case t.shownQuery == now.shownQuery:
			add(rankFill, "another value in query parameters %s", clip(now.shownQuery, 55))
		default:
			add(rankFill, "query parameters %s instead of %s", clip(now.shownQuery, 55), clip(t.shownQuery, 55))
		}
	}
	out = append(out, t.keyFills(now)...)
	out = append(out, t.userFills(now)...)
	out = append(out, t.balanceFills(now)...)
	return append(out, t.Policy.fills(now.Policy)...)
}

// rewrites tells whether the Host header is other than the provider's own name and port make it.
func rewrites(t *Target) bool {
	host, port := t.Endpoint.Value().Host, t.Endpoint.Value().Port
	return t.Authority != host && t.Authority != fmt.Sprintf("%s:%d", host, port)
}

func modelText(model string) string {
	if model == "" {
		return "the app's own model"
	}
	return "model " + clip(model, 50)
}

// compareLimits compares time limits and retries.
func compareLimits(before, after *Rule) (out []phrase) {
	for _, l := range []struct {
		of      string
		was, is time.Duration
	}{
		{"for a whole call", before.Timeouts.Request, after.Timeouts.Request},
		{"for the first token", before.Timeouts.FirstToken, after.Timeouts.FirstToken},
		{"between two pieces of an answer", before.Timeouts.Idle, after.Timeouts.Idle},
	} {
		if l.was != l.is {
			out = append(out, phrase{rankLimit, fmt.Sprintf("time limit %s %s instead of %s", l.of, limitText(l.is), limitText(l.was))})
		}
	}
	if before.MaxBody != after.MaxBody {
		out = append(out, phrase{rankLimit, fmt.Sprintf("bodies over %s are refused (413) instead of those over %s", size(after.MaxBody), size(before.MaxBody))})
	}
	if was, is := before.Retries.text(), after.Retries.text(); was != is {
		out = append(out, phrase{rankLimit, is + " instead of " + was})
	}
	return out
}

// limitText words a limit without units that are zero: 10m and not 10m0s.
func limitText(d time.Duration) string {
	text := limit(d)
	if s, ok := strings.CutSuffix(text, "m0s"); ok {
		text = s + "m"
	}
	if s, ok := strings.CutSuffix(text, "h0m"); ok {
		text = s + "h"
	}
	return text
}

func (r Retries) text() string {
	_, reasons, _ := strings.Cut(r.String(), " ")
	if r.Attempts == 0 || reasons == "" {
		return "no retries"
	}
	return fmt.Sprintf("%d retries (%s)", r.Attempts, strings.ReplaceAll(reasons, " ", ", "))
}
