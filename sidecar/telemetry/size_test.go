package telemetry

import (
	"fmt"
	"strings"
	"testing"
)

// What people write goes into the Secret of keys of every namespace, beside keys that need the room.
func TestWhatIsWrittenDoesNotGrowOnItsWayToSidecars(t *testing.T) {
	f := func(name func(i int) string) {
		t.Helper()
		var b strings.Builder
		b.WriteString("prices:\n  models:\n")
		for i := 0; i < MaxPrices; i++ {
			line := fmt.Sprintf("  - {model: '%s', input: 1, output: 2}\n", name(i))
			if b.Len()+len(line) > MaxText {
				break
			}
			b.WriteString(line)
		}
		s, faults := Parse([]byte(b.String()))
		if len(faults) > 0 {
			t.Fatal(faults.ToAggregate())
		}
		text, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes became %d", b.Len(), len(text))
		if len(text) > maxWritten {
			t.Errorf("%d bytes became %d", b.Len(), len(text))
		}
	}
	f(func(i int) string { return fmt.Sprintf("m%d", i) })
	var b strings.Builder
	fmt.Fprintf(&b, "prices:\n  models:\n  - {provider: &p %s/x, model: m, input: 1, output: 2}\n", strings.Repeat("p", 300))
	for i := range MaxPrices - 1 {
		fmt.Fprintf(&b, "  - {provider: *p , model: m%d, input: 1, output: 2}\n", i)
	}
	if _, faults := Parse([]byte(b.String())); len(faults) != 1 || !strings.Contains(faults[0].Error(), "Too long") {
		t.Errorf("anchors: %v", faults)
	}
	f(func(i int) string { return fmt.Sprintf("%d%s", i, strings.Repeat("<", 100)) })
	f(func(i int) string { return fmt.Sprintf("%d%s", i, strings.Repeat("模", 80)) })
	f(func(i int) string { return fmt.Sprintf("%d%s", i, strings.Repeat(`"`, 250)) })
}
