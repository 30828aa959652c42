package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Weight says how much what iptables-save shows speaks for going on with the back end that holds it: 2 where an earlier run of
// ours wrote there, 1 where anybody has rules, else 0.
func Weight(saved string) int {
	weight := 0
	for line := range strings.Lines(saved) {
		switch {
		case strings.HasPrefix(line, ":"+Chain+" "):
			return 2
		case strings.HasPrefix(line, "-A "):
			weight = 1
		}
	}
	return weight
}

// appended are the rules of a chain, as iptables-save shows them.
func appended(saved, chain string) []string {
	var all []string
	nat := false
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "*") {
			nat = line == "*nat"
		}
		if nat && strings.HasPrefix(line, "-A "+chain+" ") {
			all = append(all, line)
		}
	}
	return all
}

// quoted is a text within a rule, such as a comment: it may say anything.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// jumps are the rules of OUTPUT that lead into our chain.
func jumps(saved string) []string {
	return slices.DeleteFunc(appended(saved, "OUTPUT"), func(line string) bool {
		words := strings.Fields(quoted.ReplaceAllString(line, `""`))
		i := slices.Index(words, "-j")
		return i < 0 || i+1 == len(words) || words[i+1] != Chain
	})
}

// Verify says what is amiss if, after the script, iptables-save does not show the rules where they belong.
func (w Wish) Verify(f Family, saved string) error {
	output := appended(saved, "OUTPUT")
	if len(output) == 0 || output[0] != "-A "+jump {
		return fmt.Errorf("the first rule of OUTPUT is not %q but %q", "-A "+jump, strings.Join(output[:min(len(output), 1)], ""))
	}
	if n := len(jumps(saved)); n != 1 {
		return fmt.Errorf("%d rules lead from OUTPUT to %s, not one", n, Chain)
	}
	got := appended(saved, Chain)
	if want := len(w.rules(f)); len(got) != want {
		return fmt.Errorf("%s has %d rules, not the %d that were written", Chain, len(got), want)
	}
	// Versions of iptables-save write the same rule differently, so only what must not be missing is looked for.
	for i, owner := range []string{"--uid-owner", "--gid-owner"} {
		if guard := fmt.Sprint(owner, " ", UID, " -j RETURN"); !strings.Contains(got[i], guard) {
			return fmt.Errorf("rule %d of %s, %q, does not let the sidecar through: it should say %q", i+1, Chain, got[i], guard)
		}
	}
	return nil
}
