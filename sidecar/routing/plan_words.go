package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// change is one thing that becomes different for calls.
type change struct {
	rank int
	// subject is what it is about: a host, with the rule where there are several. Changes that are the
	// same for several subjects are told together. Empty: text says it all.
	subject string
	text    string
}

// What matters more comes first.
const (
	rankEnd    = iota // there is no configuration any more
	rankDanger        // calls fail, or leave in plain text
	rankMove          // calls go elsewhere
	rankRule          // calls are decided by other rules
	rankFill          // what is filled in: model, key, path
	rankLimit         // time limits, retries, fall-back
	rankServed        // hosts that are served now
	rankNote
)

// sentences words the changes, each with the pods that it holds for.
func (e *edit) sentences(said map[change][]int, pods []map[string]string) []string {
	if len(said) == 0 {
		return nil
	}
	if e.uncompared > 0 {
		said[change{rankNote, "", fmt.Sprintf("%d more hosts have routes to the same provider and were not compared", e.uncompared)}] = make([]int, len(pods))
	}
	type group struct {
		rank         int
		which, text  string
		ofAnySubject bool
	}
	subjects := map[group][]string{}
	for c, holds := range said {
		g := group{c.rank, whichPods(holds, pods), c.text, c.subject == ""}
		subjects[g] = append(subjects[g], c.subject)
	}
	var all []change // with the whole sentence as text
	for g, of := range subjects {
		slices.Sort(of)
		if len(of) > 2 {
			of = []string{fmt.Sprintf("%s and %d more", of[0], len(of)-1)}
		}
		for _, subject := range of {
			text := g.text
			if !g.ofAnySubject {
				text = subject + ": " + text
			}
			if g.which != "" {
				text = g.which + ": " + text
			}
			all = append(all, change{rank: g.rank, text: cut(text)})
		}
	}
	slices.SortFunc(all, func(a, b change) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.text, b.text)) })
	all = slices.Compact(all)
	var out []string
	for _, c := range all {
		out = append(out, c.text)
	}
	if n := len(out); n > maxSentences {
		out = append(out[:maxSentences-1], fmt.Sprintf("and %d more changes", n-maxSentences+1))
	}
	return out
}

// cut shortens a sentence to what a warning may have.
func cut(s string) string {
	if len(s) <= maxSentence {
		return s
	}
	s = s[:maxSentence-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

func printable(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		s = strings.Trim(strconv.QuoteToASCII(s), `"`)
	}
	return s
}

// clip shortens a name or a value in its middle to about n bytes, and makes it printable.
func clip(s string, n int) string {
	if s = printable(s); len(s) <= n {
		return s
	}
	head, tail := s[:n*2/3], s[len(s)-n/3:]
	for !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	for !utf8.ValidString(tail) {
		tail = tail[1:]
	}
	return head + "…" + tail
}

func hostText(host string) string { return clip(host, 64) }

func quoted(s string) string { return `"` + clip(s, 40) + `"` }

// percent words a share.
func percent(share float64) string {
	switch p := share * 100; {
	case p < 1:
		return "<1 %"
	case p > 99 && p < 99.9999:
		return ">99 %"
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

// status is what an app is answered for a code, as the proxy has it.
func (r *Refusal) status() string {
	switch r.Code {
	case NotForThisWorkload:
		return "403 " + string(r.Code)
	case NoRuleMatches:
		return "404 " + string(r.Code)
	default:
		return "503 " + string(r.Code)
	}
}

// label names a rule among those of its host.
func (r *Rule) label() string {
	switch {
	case r.number == 0:
		return "the provider's own config"
	case r.Name != "":
		return "rule " + clip(r.Name, 50)
	}
	return "rule " + strconv.Itoa(r.number)
}
