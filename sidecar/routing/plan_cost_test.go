package routing_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// heavyEdit turns the order of a route's rules around.
func heavyEdit(rules, matches int, header func(rule, match int) (string, v1beta1.StringMatch)) (before, after routing.Objects) {
	one := func(turned bool) routing.Objects {
		r := v1beta1.LLMRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "heavy"}, Spec: v1beta1.LLMRouteSpec{Host: "chat"}}
		for i := range rules {
			rule := v1beta1.LLMRule{BackendRefs: []v1beta1.LLMBackendRef{{ProviderHost: "llm.example.com"}}}
			for j := range matches {
				name, value := header(i, j)
				rule.Matches = append(rule.Matches, v1beta1.LLMRequestMatch{Headers: map[string]v1beta1.StringMatch{name: value}})
			}
			r.Spec.Rules = append(r.Spec.Rules, rule)
		}
		if turned {
			slices.Reverse(r.Spec.Rules)
		}
		return routing.Objects{Routes: []v1beta1.LLMRoute{r}}
	}
	return one(false), one(true)
}

// Admission has five seconds and, by default, 512 MiB for all that it does at once. Time is not measured here, since it depends
// on what else runs; it goes with what is allocated.
func TestAPlanOfTheLargestRoutesStaysSmall(t *testing.T) {
	for name, edit := range map[string]func() (before, after routing.Objects){
		"8,192 matches without names": func() (before, after routing.Objects) {
			return heavyEdit(256, 32, func(rule, match int) (string, v1beta1.StringMatch) {
				return fmt.Sprintf("x-%d-%d", rule, match), v1beta1.StringMatch{Prefix: new(fmt.Sprint(rule))}
			})
		},
		"regular expressions of 7 MB each": func() (before, after routing.Objects) {
			return heavyEdit(256, 1, func(rule, _ int) (string, v1beta1.StringMatch) {
				return "x", v1beta1.StringMatch{Regex: new(fmt.Sprintf(`\pL{900}%d`, rule))}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := edit()
			var start, end runtime.MemStats
			runtime.ReadMemStats(&start)
			said := routing.Plan(before, after)
			runtime.ReadMemStats(&end)
			if took := (end.TotalAlloc - start.TotalAlloc) >> 20; took > 250 {
				t.Errorf("it allocated %d MiB", took)
			}
			if len(said) == 0 {
				t.Error("it says nothing")
			}
		})
	}
}

// Each of these expressions takes milliseconds on each of these values: compared with one another, a whole route of them takes minutes.
func TestAPlanGivesUpOnSlowExpressions(t *testing.T) {
	before, after := heavyEdit(80, 1, func(rule, _ int) (string, v1beta1.StringMatch) {
		if rule%2 == 0 {
			return "x", v1beta1.StringMatch{Regex: new(fmt.Sprintf("(a?){100}b%d", rule))}
		}
		return "x", v1beta1.StringMatch{Exact: new(strings.Repeat("a", 1000) + fmt.Sprint(rule))}
	})
	want := []string{"chat: the rules are more than are compared here: what the edit does to calls is not said"}
	if said := routing.Plan(before, after); !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
}
