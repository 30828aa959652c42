package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/sidecar/routing"
)

// What is in quotes here is what an attacker writes: colours, a new line that looks like another warning, text that runs backwards.
const nasty = `"a\u001b[31m\nWarning: all is well\u202e"`

func TestNothingThatAnObjectSaysReachesATerminalAsAnythingButText(t *testing.T) {
	covered := objectOf(t, "kind: LLMRoute\nmetadata: {name: r}\nspec: {host: chat, rules: [{name: "+nasty+", backendRefs: [{providerHost: x.example.com}]}, {name: "+nasty+", backendRefs: [{providerHost: x.example.com}]}]}")
	wrong := objectOf(t, "kind: LLMRoute\nmetadata: {name: r}\nspec: {host: chat, rules: [{matches: [{headers: {"+nasty+": {}}}], backendRefs: [{providerHost: x.example.com}]}]}")
	warnings := presentable(judge(nil, change{after: covered}).warnings)
	denial := refusal(wrong, judge(nil, change{after: wrong}).denied)
	said := append(warnings, denial.Message, rulesOf(covered))
	for _, c := range denial.Details.Causes {
		said = append(said, c.Field, c.Message)
	}
	for _, o := range []*object{covered, wrong} {
		for _, c := range conditionsFor(routing.Judge(together(nil, o)), 1) {
			said = append(said, c.Message)
		}
	}
	shown := 0
	for _, s := range said {
		if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("not plain: %q", s)
		}
		shown += strings.Count(s, `\x1b[31m`)
	}
	if shown < 5 {
		t.Errorf("the names are in only %d of\n%q", shown, said)
	}
}

func TestOfManyLikeWarningsSomeAreInWords(t *testing.T) {
	for n, want := range map[int]string{2: "", 3: "", 4: "; and 1 more like this", 200: "; and 197 more like this"} {
		var rules strings.Builder
		for i := range n + 1 {
			fmt.Fprintf(&rules, "{name: rule-%d, backendRefs: [{providerHost: x.example.com}]}, ", i)
		}
		o := objectOf(t, "kind: LLMRoute\nmetadata: {name: r}\nspec: {host: chat, rules: ["+rules.String()+"]}")
		v := judge([]*object{objectOf(t, "kind: LLMProvider\nmetadata: {name: p}\nspec: {host: x.example.com}")}, change{after: o})
		var never []string
		for _, w := range v.warnings {
			if strings.Contains(w, "(RuleNeverMatches)") {
				never = append(never, w)
			}
		}
		if len(never) != min(n, 3) || !strings.HasSuffix(never[len(never)-1], "(RuleNeverMatches)"+want) {
			t.Errorf("of %d: %q", n, never)
		}
		status := conditionsFor(routing.Judge(together(nil, o)), 1)[0]
		if status.Status != metav1.ConditionTrue || strings.Count(status.Message, "(RuleNeverMatches)") != n {
			t.Errorf("of %d, the status has: %s", n, status.Message)
		}
	}
}
