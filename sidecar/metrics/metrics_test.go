package metrics

import (
	"strings"
	"testing"
)

func TestWhatTheProcessNeedsIsShownBesideWhatIsCounted(t *testing.T) {
	s := New()
	s.Failures("some_code").Inc()
	var b strings.Builder
	s.Write(&b)
	for _, want := range []string{
		"remora_failures_total{code=\"some_code\"} 1\n",
		"\ngo_goroutines ", "\nprocess_resident_memory_bytes ", "\nprocess_open_fds ", "\nprocess_cpu_seconds_total ",
	} {
		if !strings.Contains("\n"+b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}
