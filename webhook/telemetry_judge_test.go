package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/v1beta1"
)

func TestWhatIsWrittenAboutTelemetryIsJudgedWhenItIsWritten(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	j := &telemetryJudge{now: func() time.Time { return noon }, denied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "denied"}, []string{"kind", "code"})}
	raw := func(o any) runtime.RawExtension {
		if o == nil {
			return runtime.RawExtension{}
		}
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: text}
	}
	f := func(kind string, before, after any, want ...string) {
		t.Helper()
		answer := j.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
			Kind: metav1.GroupVersionKind{Version: "v1", Kind: kind}, Name: "it", OldObject: raw(before), Object: raw(after),
		}})
		if answer.Allowed != (len(want) == 0) {
			t.Errorf("allowed: %t, %+v", answer.Allowed, answer.Result)
		}
		for _, w := range want {
			if !strings.Contains(answer.Result.Message, w) || len(answer.Result.Message) > 4000 {
				t.Errorf("%q is not in %.4000q", w, answer.Result.Message)
			}
		}
		if len(want) > 0 && answer.Result.Code != http.StatusUnprocessableEntity && answer.Result.Code != http.StatusInternalServerError {
			t.Errorf("code %d", answer.Result.Code)
		}
	}
	config := func(data map[string]string) *corev1.ConfigMap { return &corev1.ConfigMap{Data: data} }
	f("ConfigMap", nil, config(map[string]string{"telemetry.yaml": "accessLog: {level: off}"}))
	f("ConfigMap", nil, config(map[string]string{"telemetry.yaml": "accessLog: {level: loud, sample: 3}\ntraces: [x]"}),
		`ConfigMap "it" is invalid`, `data[telemetry.yaml].accessLog.level: Unsupported value: "loud"`, "data[telemetry.yaml].accessLog.sample: Invalid value: 3", "data[telemetry.yaml].traces: Invalid value")
	f("ConfigMap", nil, config(map[string]string{"telemetry.yml": ""}), `data: Unsupported value: "telemetry.yml"`, "data[telemetry.yaml]: Required value")
	f("ConfigMap", nil, config(map[string]string{"telemetry.yaml": "prices: {models: [" + strings.Repeat("{model: m},", 900) + "]}"}), "faults more")
	f("ConfigMap", nil, config(map[string]string{"telemetry.yaml": "a: &a [b"}), "data[telemetry.yaml]: Invalid value")

	ns := func(annotations ...string) *corev1.Namespace {
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"other": "x"}}}
		for i := 0; i < len(annotations); i += 2 {
			n.Annotations[annotations[i]] = annotations[i+1]
		}
		return n
	}
	f("Namespace", nil, ns())
	f("Namespace", ns(), ns(v1beta1.AccessLogAnnotation, "off", v1beta1.CaptureUntilAnnotation, "2026-11-23T13:00:00Z"))
	f("Namespace", ns(), ns(v1beta1.AccessLogAnnotation, "loud", v1beta1.CaptureUntilAnnotation, "2026-11-25T13:00:00Z", v1beta1.TraceSampleAnnotation, strings.Repeat("9", 200_000)),
		`metadata.annotations[remora.dev/access-log]: Unsupported value: "loud": supported values: "all", "errors", "off"`, "metadata.annotations[remora.dev/capture-until]", "must be within 24 hours from now", "trace-sample")
	bad := ns(v1beta1.AccessLogAnnotation, "loud")
	f("Namespace", bad, bad)
	f("Namespace", bad, ns(v1beta1.AccessLogAnnotation, "loud", v1beta1.TraceSampleAnnotation, "2"), "remora.dev/trace-sample")
	f("Namespace", bad, ns())
	f("Pod", nil, ns(), "is not judged here")
}
