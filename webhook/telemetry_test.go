package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/telemetry"
)

// awaitTelemetry waits until the keys of a namespace say what is wanted of telemetry.
func (r *accessRig) awaitTelemetry(tb testing.TB, namespace string, wanted func(telemetry.Settings) bool) {
	tb.Helper()
	start := time.Now()
	r.awaitSecret(tb, namespace, v1beta1.KeysSecret, func(s *corev1.Secret) bool {
		if s == nil {
			return false
		}
		settings := *telemetry.Default()
		if entry, ok := s.Data[v1beta1.TelemetryEntry]; ok {
			var err error
			if settings, err = telemetry.Decode(entry); err != nil {
				tb.Errorf("%v: %s", err, entry)
			}
		}
		return wanted(settings)
	})
	tb.Logf("after %s", time.Since(start).Round(time.Millisecond))
}

func (r *accessRig) configMap(tb testing.TB, text string) {
	tb.Helper()
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1beta1.InstallationNamespace, Name: v1beta1.Telemetry}}
	err := r.admin.Get(tb.Context(), client.ObjectKeyFromObject(c), c)
	c.Data = map[string]string{v1beta1.TelemetryKey: text}
	if err == nil {
		err = r.admin.Update(tb.Context(), c)
	} else {
		err = r.admin.Create(tb.Context(), c)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func (r *accessRig) annotate(tb testing.TB, namespace string, args ...string) {
	tb.Helper()
	if out, err := r.Kubectl(tb.Context(), append([]string{"annotate", "--overwrite", "namespace", namespace}, args...)...); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

func TestTelemetryReachesTheKeysOfEachNamespaceAndFollowsWhatIsSaid(t *testing.T) {
	r := newAccessRig(t)
	r.start(t)
	r.label(t, "apps", v1beta1.InjectEnabled)
	r.label(t, "calm", v1beta1.InjectPods)
	r.awaitFive(t, "apps")
	r.awaitFive(t, "calm")
	level := func(want telemetry.Level) func(telemetry.Settings) bool {
		return func(s telemetry.Settings) bool { return s.AccessLog.Level == want }
	}
	r.awaitSecret(t, "apps", v1beta1.KeysSecret, holds(nil)) // where nobody says anything, nothing is written

	r.configMap(t, "accessLog: {level: errors}\ntraces: {endpoint: 'http://collector:4318'}\nprices: {models: [{model: m, input: 1, output: 2}]}\n")
	r.awaitTelemetry(t, "apps", level(telemetry.Errors))
	r.awaitTelemetry(t, "calm", func(s telemetry.Settings) bool { return len(s.Prices.Models) == 1 })
	r.annotate(t, "apps", "remora.dev/access-log=all", "remora.dev/trace-sample=1")
	r.awaitTelemetry(t, "apps", func(s telemetry.Settings) bool { return s.AccessLog.Level == telemetry.All && s.Traces.Sample == 1 })
	r.awaitTelemetry(t, "calm", level(telemetry.Errors))

	// Headers come from a Secret, change with it, and go with it.
	r.secret(t, v1beta1.InstallationNamespace, v1beta1.Telemetry, map[string]string{"Authorization": "Bearer one", "Host": "hidden"})
	header := func(want string) func(telemetry.Settings) bool {
		return func(s telemetry.Settings) bool {
			return s.Traces.Headers["Authorization"] == want && s.Traces.Headers["Host"] == ""
		}
	}
	r.awaitTelemetry(t, "apps", header("Bearer one"))
	r.secret(t, v1beta1.InstallationNamespace, v1beta1.Telemetry, map[string]string{"Authorization": "Bearer two"})
	r.awaitTelemetry(t, "calm", header("Bearer two"))
	if out, err := r.Kubectl(t.Context(), "-n", v1beta1.InstallationNamespace, "delete", "secret", v1beta1.Telemetry); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.awaitTelemetry(t, "apps", header(""))

	// A capture ends, and its annotation stays.
	r.annotate(t, "apps", "remora.dev/capture-until="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "remora.dev/capture-bytes=100")
	r.awaitTelemetry(t, "apps", func(s telemetry.Settings) bool { return s.Capture != nil && s.Capture.Bytes == 100 })
	r.ahead.Store(int64(61 * time.Minute))
	r.awaitTelemetry(t, "apps", func(s telemetry.Settings) bool { return s.Capture == nil })
	r.ahead.Store(0)
	r.annotate(t, "apps", "remora.dev/capture-until=2999-01-01T00:00:00Z", "remora.dev/access-log="+strings.Repeat("x", 100_000))
	r.awaitTrouble(t, "apps", telemetryInvalid, "metadata.annotations[remora.dev/capture-until]", "must be within 24 hours")
	r.awaitTrouble(t, "apps", telemetryInvalid, "metadata.annotations[remora.dev/access-log]", `supported values: "all", "errors", "off"`)
	r.awaitTelemetry(t, "apps", func(s telemetry.Settings) bool { return s.Capture == nil && s.AccessLog.Level == telemetry.Errors })

	// A bad ConfigMap changes nothing, also for a controller that is new; annotations count still.
	r.configMap(t, "accessLog: {level: loud}\n")
	r.eventually(t, "the event "+telemetryInvalid, func(ctx context.Context) error {
		if all := strings.Join(r.eventsOf(ctx, t, "ConfigMap", v1beta1.InstallationNamespace, v1beta1.Telemetry), "\n"); !strings.Contains(all, "accessLog.level") {
			return fmt.Errorf("it is not in %q", all)
		}
		return nil
	})
	r.stop()
	r.start(t)
	r.annotate(t, "apps", "remora.dev/access-log-sample=0.25", "remora.dev/access-log-")
	r.awaitTelemetry(t, "apps", func(s telemetry.Settings) bool {
		return s.AccessLog == telemetry.AccessLog{Level: telemetry.Errors, Sample: 0.25} && len(s.Prices.Models) == 1
	})
	r.awaitTelemetry(t, "calm", level(telemetry.Errors))
	r.awaitMetric(t, `remora_namespace_problems{code="TelemetryInvalid"} 2`) // the installation, and the capture of apps
	r.configMap(t, "accessLog: {level: off}\n")
	r.awaitTelemetry(t, "calm", level(telemetry.Off))
	if out, err := r.Kubectl(t.Context(), "-n", v1beta1.InstallationNamespace, "delete", "configmap", v1beta1.Telemetry); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.awaitSecret(t, "calm", v1beta1.KeysSecret, holds(nil))
	if log := r.log.String(); strings.Contains(log, "Bearer") || strings.Contains(log, "hidden") {
		t.Error("a header is in the log")
	}
}
