//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
)

func TestANamespaceSaysWhatIsToldOfItsCallsWhileTheyGoOn(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-telemetry")
	apply(t, exampleProvider("sk-of-telemetry"), "-n", in)
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	// lines gives what the access log has of calls.
	lines := func() (all []string) {
		for line := range strings.Lines(kubectl(t, "-n", in, "logs", "pod/app", "-c", v1beta1.SidecarContainer)) {
			if strings.Contains(line, `"request_model":`) {
				all = append(all, line)
			}
		}
		return all
	}
	// tells calls until the newest line of the log is as wanted.
	tells := func(what, prompt string, wanted func(newest string) bool) {
		t.Helper()
		began := time.Now()
		eventually(t, what, func() (string, bool) {
			before := len(lines())
			shell(t, in, "pod/app", ask(example, prompt))
			after := lines()
			newest := ""
			if len(after) > before {
				newest = after[len(after)-1]
			}
			return newest, wanted(newest)
		})
		t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
	}
	const prompt = "a prompt that nobody should see"
	tells("a call has a line without its prompt", prompt, func(newest string) bool {
		return newest != "" && !strings.Contains(newest, prompt) && strings.Contains(newest, `"pod":"app"`) && strings.Contains(newest, `"namespace":"`+in+`"`)
	})
	kubectl(t, "annotate", "namespace", in, "remora.dev/access-log=off")
	tells("a call has no line any more", prompt, func(newest string) bool { return newest == "" })
	kubectl(t, "annotate", "--overwrite", "namespace", in, "remora.dev/access-log=all", "remora.dev/capture-sample=1",
		"remora.dev/capture-until="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	const seen = "a prompt that is captured"
	tells("a call has a line with its prompt", seen, func(newest string) bool { return strings.Contains(newest, seen) })
	kubectl(t, "annotate", "namespace", in, "remora.dev/capture-until-")
	tells("a call has a line without its prompt again", prompt, func(newest string) bool { return newest != "" && !strings.Contains(newest, prompt) })
	for _, line := range lines() {
		if strings.Contains(line, prompt) || strings.Contains(line, "sk-of-telemetry") {
			t.Errorf("the log has %s", line)
		}
	}
	for _, s := range onePod(t, in, "app=app").Status.InitContainerStatuses {
		if s.RestartCount != 0 {
			t.Errorf("%s was restarted", s.Name)
		}
	}
}
