package routing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// outcome is where a call ends up: at a provider, or in a refusal.
type outcome struct {
	text    string
	refused bool
}

var noRule = outcome{"no rule (404 " + string(NoRuleMatches) + ")", true}

func (r *Refusal) outcome() outcome {
	if r.Code == ProviderNotFound {
		return outcome{"no provider (" + r.status() + ")", true}
	}
	return outcome{"a refusal (" + r.status() + ")", true}
}

// outcome names a provider by its host; rewritten says of which hosts that is not enough.
func (t *Target) outcome(rewritten map[string]bool) outcome {
	host := t.Endpoint.Value().Host
	text := hostText(host)
	if t.Servers.Subset != "" {
		text += " (" + clip(t.Servers.Subset, 40) + ")"
	}
	if rewritten[host] {
		text += " as " + hostText(t.Authority)
	}
	return outcome{text: text}
}

// sharesOf gives the share of calls that each outcome has at the first attempt.
func sharesOf(r *Rule, rewritten map[string]bool) map[outcome]float64 {
	out := map[outcome]float64{}
	if r == nil {
		out[noRule] = 1
		return out
	}
	rest, missing := 1.0, 0.0
	why := map[outcome]float64{} // that the first priority does not answer
	for i := range r.Levels {
		l := &r.Levels[i]
		lost := 0.0
		for j := range l.Backends {
			b := &l.Backends[j]
			share := rest * float64(b.Weight) / float64(l.total)
			switch {
			case b.Weight == 0:
			case b.Target != nil:
				out[b.Target.outcome(rewritten)] += share
			default:
				lost += share
				if i == 0 {
					why[b.Refusal.outcome()] += share
					missing += share
				}
			}
		}
		if rest = lost; rest == 0 {
			return out
		}
	}
	for o, share := range why {
		out[o] += share * rest / missing
	}
	return out
}

func sorted(shares map[outcome]float64) []outcome {
	return slices.SortedFunc(maps.Keys(shares), func(a, b outcome) int { return strings.Compare(a.text, b.text) })
}

// same is how much two shares may differ by the rounding of their sums.
const same = 1e-9

// compareShares says which calls go elsewhere.
func compareShares(before, after *Rule, rewritten map[string]bool) []phrase {
	was, is := sharesOf(before, rewritten), sharesOf(after, rewritten)
	var lose, gain []outcome
	all := maps.Clone(was)
	maps.Copy(all, is)
	for _, o := range sorted(all) {
		if d := is[o] - was[o]; d > same {
			gain = append(gain, o)
		} else if d < -same {
			lose = append(lose, o)
		}
	}
	if len(gain) == 0 || len(lose) == 0 {
		return nil
	}
	byChange := func(a, b outcome) int {
		x, y := max(is[a]-was[a], was[a]-is[a]), max(is[b]-was[b], was[b]-is[b])
		if x-y < same && y-x < same {
			return strings.Compare(a.text, b.text)
		}
		return cmp.Compare(y, x)
	}
	slices.SortFunc(lose, byChange)
	slices.SortFunc(gain, byChange)
	total := 0.0
	rank := rankMove
	for _, o := range gain {
		total += is[o] - was[o]
		if o.refused {
			rank = rankDanger
		}
	}
	list := func(of []outcome, word string) string {
		if len(of) == 1 {
			return word + " " + of[0].text
		}
		var parts []string
		for _, o := range of[:min(len(of), 3)] {
			parts = append(parts, percent(max(is[o]-was[o], was[o]-is[o]))+" "+word+" "+o.text)
		}
		if more := len(of) - len(parts); more > 0 {
			parts = append(parts, fmt.Sprintf("the rest %s %d more", word, more))
		}
		return strings.Join(parts, ", ")
	}
	who := percent(total) + " of calls move"
	if total > 1-same {
		who = "all calls move"
	}
	text := who + " " + list(lose, "from") + " " + list(gain, "to")
	switch {
	case len(lose) > 1 && len(gain) > 1:
		text = who + ": " + list(lose, "from") + "; " + list(gain, "to")
	case len(lose) > 1:
		text = who + " " + list(gain, "to") + ": " + list(lose, "from")
	case len(gain) > 1:
		text = who + " " + list(lose, "from") + ": " + list(gain, "to")
	}
	if plainShare(after, rewritten) > plainShare(before, rewritten)+same {
		rank = rankDanger
		text += ", in plain text"
	}
	return []phrase{{rank, text}}
}

// plainShare is the share of calls that leave in plain text.
func plainShare(r *Rule, rewritten map[string]bool) (share float64) {
	shares := sharesOf(r, rewritten)
	seen := map[outcome]bool{}
	for _, t := range targetsOf(r) {
		if o := t.outcome(rewritten); !t.Endpoint.Value().TLS && !seen[o] {
			seen[o] = true
			share += shares[o]
		}
	}
	return share
}

// targetsOf gives the providers of a rule that calls may reach, in order.
func targetsOf(r *Rule) (out []*Target) {
	if r == nil {
		return nil
	}
	for i := range r.Levels {
		for j := range r.Levels[i].Backends {
			if b := &r.Levels[i].Backends[j]; b.Target != nil && b.Weight > 0 {
				out = append(out, b.Target)
			}
		}
	}
	return out
}

// compareFallback says what becomes different about the second choices.
func compareFallback(before, after *Rule, rewritten map[string]bool) []phrase {
	if before == nil || after == nil {
		return nil
	}
	was, is := before.levelTexts(rewritten), after.levelTexts(rewritten)
	if slices.Equal(was, is) {
		return nil
	}
	a, b := strings.Join(was[1:], ", then "), strings.Join(is[1:], ", then ")
	switch {
	case a == b:
		return nil // the first choice is another: that is told of shares
	case a == "":
		return []phrase{{rankLimit, "fall-back added: " + b}}
	case b == "":
		return []phrase{{rankLimit, "fall-back removed: no longer " + a}}
	}
	return []phrase{{rankLimit, "fall-back is " + b + " instead of " + a}}
}

// levelTexts words the providers of each priority. Refusals have no text: nothing falls back to them.
func (r *Rule) levelTexts(rewritten map[string]bool) []string {
	var out []string
	for i := range r.Levels {
		level := *r
		level.Levels = r.Levels[i : i+1]
		shares := sharesOf(&level, rewritten)
		maps.DeleteFunc(shares, func(o outcome, _ float64) bool { return o.refused })
		var parts []string
		for _, o := range sorted(shares) {
			part := o.text
			if len(shares) > 1 {
				part = percent(shares[o]) + " " + part
			}
			parts = append(parts, part)
		}
		if text := strings.Join(parts, " and "); text != "" || i == 0 {
			out = append(out, text)
		}
	}
	return out
}
