package routing

import (
	"fmt"
	"net/textproto"
	"regexp"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// judgeReach warns about rules that can never match because earlier ones take every call that they
// would take.
func judgeReach(f *findings, rules []v1beta1.LLMRule) {
	for i := range rules {
		for j := range i {
			if !coversRule(&rules[j], &rules[i]) {
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
func coversRule(early, late *v1beta1.LLMRule) bool {
	if len(early.Matches) == 0 {
		return true
	}
	if len(late.Matches) == 0 {
		return false
	}
	for i := range late.Matches {
		if !anyCovers(early.Matches, &late.Matches[i]) {
			return false
		}
	}
	return true
}

func anyCovers(early []v1beta1.LLMRequestMatch, late *v1beta1.LLMRequestMatch) bool {
	for i := range early {
		if coversMatch(&early[i], late) {
			return true
		}
	}
	return false
}

func coversMatch(early, late *v1beta1.LLMRequestMatch) bool {
	if !subset(early.SourceLabels, late.SourceLabels) {
		return false
	}
	if early.Model != nil && (late.Model == nil || !coversString(*early.Model, *late.Model)) {
		return false
	}
	for name, e := range early.Headers {
		covered := false
		for other, l := range late.Headers {
			covered = covered || textproto.CanonicalMIMEHeaderKey(name) == textproto.CanonicalMIMEHeaderKey(other) && coversString(e, l)
		}
		if !covered {
			return false
		}
	}
	return true
}

func coversString(early, late v1beta1.StringMatch) bool {
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
		return late.Exact != nil && regexp.MustCompile("^(?:"+*early.Regex+")$").MatchString(*late.Exact)
	}
	// Presence. A model is present when it is not empty, a header also when it is.
	return late.Exact == nil && late.Prefix == nil && late.Regex == nil || late.Exact != nil && *late.Exact != "" ||
		late.Prefix != nil && *late.Prefix != ""
}
