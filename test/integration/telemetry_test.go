package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/telemetry"
)

func telemetryMap(text string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: remora-telemetry, namespace: remora-system}\ndata:\n  telemetry.yaml: |\n    " +
		strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

// toldIn gives what the sidecars of a namespace are to tell, when ok holds for that.
func toldIn(t *testing.T, namespace string, ok func(*telemetry.Settings) bool) {
	t.Helper()
	began, last := time.Now(), ""
	for t.Context().Err() == nil && time.Since(began) < 30*time.Second {
		out, err := installed.Kubectl(t.Context(), "-n", namespace, "get", "secret", v1beta1.KeysSecret, "-o", `jsonpath={.data._telemetry\.json}`)
		text, decodeErr := base64.StdEncoding.DecodeString(out)
		s := *telemetry.Default()
		if err == nil && decodeErr == nil && len(text) > 0 {
			s, err = telemetry.Decode(text)
		}
		if err == nil && decodeErr == nil && ok(&s) {
			t.Logf("after %s", time.Since(began).Round(time.Millisecond))
			return
		}
		last = fmt.Sprintf("%s %v %v", text, err, decodeErr)
	}
	t.Fatalf("there is only %s", last)
}

func TestWhatIsToldOfCallsIsJudgedAndReachesTheSidecarsOfANamespace(t *testing.T) {
	in := newNamespace(t)
	kubectl(t, "label", "namespace", in, "remora.dev/inject=enabled")
	refused := func(out string, err error, want ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("it is let in: %s", out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%q is not in %s", w, out)
			}
		}
	}
	apply := func(text string) (string, error) { return installed.KubectlWith(t.Context(), text, "apply", "-f", "-") }
	out, err := apply(telemetryMap("accessLog: {level: loud}\nprices: {currency: dollar}"))
	refused(out, err, `data[telemetry.yaml].accessLog.level: Unsupported value: "loud"`, "data[telemetry.yaml].prices.currency", "three capital letters")
	out, err = apply(telemetryMap("prices: {models: [" + strings.Repeat("{model: m, input: 1, output: 2},", 1500) + "]}"))
	refused(out, err, "Too many: 1500: must have at most 1000 items")

	t.Cleanup(func() {
		if out, err := installed.Kubectl(context.Background(), "-n", "remora-system", "delete", "configmap", "remora-telemetry", "--ignore-not-found"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	kubectl(t, "apply", "-k", "../../config/telemetry")
	toldIn(t, in, func(s *telemetry.Settings) bool {
		return len(s.Prices.Models) == 3 && s.Traces.Endpoint == "http://otel-collector.observability:4318" && s.AccessLog.Level == telemetry.All
	})
	if out, err := apply(telemetryMap("accessLog: {level: off}")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	toldIn(t, in, func(s *telemetry.Settings) bool {
		return s.AccessLog.Level == telemetry.Off && len(s.Prices.Models) == 0
	})

	annotate := func(args ...string) (string, error) {
		return installed.Kubectl(t.Context(), append([]string{"annotate", "--overwrite", "namespace", in}, args...)...)
	}
	out, err = annotate("remora.dev/access-log=some")
	refused(out, err, `metadata.annotations[remora.dev/access-log]: Unsupported value: "some": supported values: "all", "errors", "off"`)
	out, err = annotate("remora.dev/capture-until=2999-01-01T00:00:00Z")
	refused(out, err, "metadata.annotations[remora.dev/capture-until]", "must be within 24 hours from now")
	if out, err = annotate("remora.dev/access-log=errors", "remora.dev/capture-until="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	toldIn(t, in, func(s *telemetry.Settings) bool { return s.AccessLog.Level == telemetry.Errors && s.Capture != nil })
	if out, err = annotate("remora.dev/capture-until-", "remora.dev/access-log-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	toldIn(t, in, func(s *telemetry.Settings) bool { return s.AccessLog.Level == telemetry.Off && s.Capture == nil })
	kubectl(t, "-n", "remora-system", "delete", "configmap", "remora-telemetry")
	toldIn(t, in, func(s *telemetry.Settings) bool { return s.Equal(telemetry.Default()) })
}
