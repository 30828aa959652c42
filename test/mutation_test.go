package test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	kjson "sigs.k8s.io/json"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/cases"
)

// In file mode there is no API server, so Compile has to refuse all that the schema would. Objects of the corpus are changed at
// random, always the same way, and both are asked.
func TestCompileRefusesWhatTheSchemaRefuses(t *testing.T) {
	schemas := readSchemas(t)
	refused, accepted := 0, 0
	for object := range cases.Mutations(t, 6000) {
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var seen map[string]any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &seen); err != nil {
			t.Fatal(err)
		}
		faults := schemas.faults(seen)
		_, _, problems := compile(t, cases.Case{Text: text}, nil)
		invalid := slices.ContainsFunc(problems, func(p routing.Problem) bool { return p.Severity == routing.Invalid })
		switch {
		case len(faults) > 0 && !invalid:
			t.Errorf("Compile accepts\n%s\nwhich the schema refuses:\n%s", text, strings.Join(faults, "\n"))
		case len(faults) > 0:
			refused++
		case !invalid:
			accepted++
		}
		for _, p := range problems {
			if p.Message == "" || p.Code == "" || strings.Contains(p.Message, "%!") {
				t.Errorf("a problem without words: %#v", p)
			}
		}
	}
	if refused < 1000 || accepted < 1000 {
		t.Errorf("refused by both: %d, accepted by both: %d; the changes are not of both kinds", refused, accepted)
	}
}
