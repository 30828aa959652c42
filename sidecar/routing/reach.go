package routing

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// maxComparisons bounds the time that one route can take here. What is beyond it is not warned about.
const maxComparisons = 50_000

// reach compares the matches of a route's rules.
type reach struct {
	left  int // how many comparisons are left
	regex map[string]*regexp.Regexp
}

// judgeReach warns about rules that can never match because earlier ones take every call that they
// would take.
func judgeReach(f *findings, rules []v1beta1.LLMRule) {
	c := reach{left: maxComparisons, regex: map[string]*regexp.Regexp{}}
	for i := range rules {
		for j := range i {
			if !c.coversRule(&rules[j], &rules[i]) {
				continue
			}
			f.warn(RuleNeverMatches, fmt.Sprintf("spec.rules[%d]", i),
				"%s can never match: %s takes every call before it; change their order or their matches",
				ruleLabel(&rules[i], i), ruleLabel(&rules[j], j))
			break
		}
	}
}

func ruleLabel(r *v1beta1.LLMRule, i int) string {
	if r.Name != "" {
		return "rule " + r.Name
	}
	return fmt.Sprintf("rule %d", i+1)
}

// coversRule tells whether early takes every call that late would take. It is sure when it says yes.
func (c *reach) coversRule(early, late *v1beta1.LLMRule) bool {
	if len(early.Matches) == 0 {
		return true
	}
	if len(late.Matches) == 0 {
		return false
	}
	for i := range late.Matches {
		if !c.anyCovers(early.Matches, &late.Matches[i]) {
			return false
		}
	}
	return true
}

func (c *reach) anyCovers(early []v1beta1.LLMRequestMatch, late *v1beta1.LLMRequestMatch) bool {
	for i := range early {
		if c.coversMatch(&early[i], late) {
			return true
		}
	}
	return false
}

func (c *reach) coversMatch(early, late *v1beta1.LLMRequestMatch) bool {
	if c.left--; c.left < 0 {
		return false
	}
	if !subset(early.SourceLabels, late.SourceLabels) || !atLeast(early.Gateways, late.Gateways) {
		return false
	}
	if early.Model != nil && (late.Model == nil || !c.coversString(*early.Model, *late.Model)) {
		return false
	}
	for name, e := range early.Headers {
		covered := false
		for other, l := range late.Headers {
			covered = covered || strings.EqualFold(name, other) && c.coversString(e, l)
		}
		if !covered {
			return false
		}
	}
	return true
}

// atLeast tells whether early names every gateway that late does. None named: all of them.
func atLeast(early, late []string) bool {
	return len(early) == 0 || len(late) > 0 && !slices.ContainsFunc(late, func(g string) bool { return !slices.Contains(early, g) })
}

func (c *reach) coversString(early, late v1beta1.StringMatch) bool {
	switch {
	case early.Exact != nil:
		return late.Exact != nil && *early.Exact == *late.Exact
	case early.Prefix != nil:
		return late.Exact != nil && strings.HasPrefix(*late.Exact, *early.Prefix) ||
			late.Prefix != nil && strings.HasPrefix(*late.Prefix, *early.Prefix)
	case early.Regex != nil:
		if late.Regex != nil {
			return *early.Regex == *late.Regex
		}
		if late.Exact == nil {
			return false
		}
		if parsed, err := syntax.Parse(*early.Regex, syntax.Perl); err == nil {
			c.left -= steps(parsed) * len(*late.Exact) / stepsPerComparison
		}
		return c.left >= 0 && c.compiled(*early.Regex).MatchString(*late.Exact)
	}
	// Presence. A model is present when it is not empty, a header also when it is.
	return late.Exact == nil && late.Prefix == nil && late.Regex == nil || late.Exact != nil && *late.Exact != "" ||
		late.Prefix != nil && *late.Prefix != ""
}

func (c *reach) compiled(regex string) *regexp.Regexp {
	if c.regex[regex] == nil {
		c.regex[regex] = wholeValue(regex)
	}
	return c.regex[regex]
}
