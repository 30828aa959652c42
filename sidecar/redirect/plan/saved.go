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

// within are the lines of a table, as iptables-save shows them, that begin with a prefix.
func within(saved, table, prefix string) []string {
	var all []string
	inside := false
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "*") {
			inside = line == "*"+table
		}
		if inside && strings.HasPrefix(line, prefix) {
			all = append(all, line)
		}
	}
	return all
}

// appended are the rules of a chain.
func appended(saved, table, chain string) []string { return within(saved, table, "-A "+chain+" ") }

// declared tells whether a table has our chain.
func declared(saved, table string) bool { return len(within(saved, table, ":"+Chain+" ")) > 0 }

// quoted is a text within a rule, such as a comment: it may say anything.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// jumps are the rules of OUTPUT in a table that lead into our chain.
func jumps(saved, table string) []string {
	return slices.DeleteFunc(appended(saved, table, "OUTPUT"), func(line string) bool {
		words := strings.Fields(quoted.ReplaceAllString(line, `""`))
		i := slices.Index(words, "-j")
		return i < 0 || i+1 == len(words) || words[i+1] != Chain
	})
}

// Verify says what is amiss if, after the script, iptables-save does not show the rules where they belong.
func (w Wish) Verify(f Family, saved string) error {
	for _, table := range Tables {
		if err := w.verify(f, table, saved); err != nil {
			return fmt.Errorf("table %s: %w", table, err)
		}
	}
	return nil
}

func (w Wish) verify(f Family, table, saved string) error {
	output := appended(saved, table, "OUTPUT")
	if len(output) == 0 || output[0] != "-A "+jump {
		return fmt.Errorf("the first rule of OUTPUT is not %q but %q", "-A "+jump, strings.Join(output[:min(len(output), 1)], ""))
	}
	if n := len(jumps(saved, table)); n != 1 {
		return fmt.Errorf("%d rules lead from OUTPUT to %s, not one", n, Chain)
	}
	got := appended(saved, table, Chain)
	if want := len(w.rules(f, table)); len(got) != want {
		return fmt.Errorf("%s has %d rules, not the %d that were written", Chain, len(got), want)
	}
	// Versions of iptables-save write the same rule differently, so only what must not be missing is looked for.
	for i, owner := range []string{"--uid-owner", "--gid-owner"} {
		if guard := fmt.Sprint(owner, " ", UID, " -j RETURN"); !strings.Contains(got[i], guard) {
			return fmt.Errorf("rule %d of %s, %q, does not let the sidecar through: it should say %q", i+1, Chain, got[i], guard)
		}
	}
	verdict := "-j REDIRECT"
	if table == filter {
		verdict, _, _ = strings.Cut("-j "+string(w.answer()), " --")
	}
	for i, port := range w.Ports {
		n := len(got) - len(w.Ports) + i
		if match := fmt.Sprint("--dport ", port, " "); !strings.Contains(got[n], match) || !strings.Contains(got[n], verdict) {
			return fmt.Errorf("rule %d of %s, %q, is not for port %d: it should say %q and %q", n+1, Chain, got[n], port, match, verdict)
		}
	}
	return nil
}
