package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/telemetry"
)

// telemetryPath is where the API server asks about the ConfigMap v1beta1.Telemetry, and about what namespaces say of telemetry.
const telemetryPath = "/judge-telemetry"

// telemetryJudge judges what people write about telemetry, by the functions that the controller reads it with.
type telemetryJudge struct {
	now    func() time.Time
	denied *prometheus.CounterVec // by kind and code
}

// toldObject is as much of a ConfigMap or Namespace as is looked at.
type toldObject struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Data map[string]string `json:"data"`
}

// Handle answers one admission request.
func (j *telemetryJudge) Handle(_ context.Context, req admission.Request) admission.Response {
	var before, after toldObject
	for from, to := range map[*runtime.RawExtension]*toldObject{&req.OldObject: &before, &req.Object: &after} {
		if len(from.Raw) > 0 && json.Unmarshal(from.Raw, to) != nil {
			return unjudged(&req, errors.New("it is not a Kubernetes object")) // the reason would show the whole of it
		}
	}
	var faults field.ErrorList
	switch req.Kind.Kind {
	case "ConfigMap":
		faults = configMapFaults(after.Data)
	case "Namespace":
		// What was there before is in nobody's way.
		said := map[string]string{}
		for _, name := range telemetryAnnotations {
			if value, ok := after.Metadata.Annotations[name]; ok {
				if was, had := before.Metadata.Annotations[name]; !had || was != value {
					said[name] = value
				}
			}
		}
		_, faults = telemetry.Default().With(said, j.now())
	default:
		return unjudged(&req, errors.New("its kind is not judged here: correct the rules of the ValidatingWebhookConfiguration"))
	}
	if len(faults) == 0 {
		return admission.Allowed("")
	}
	j.denied.WithLabelValues(req.Kind.Kind, telemetryInvalid).Inc()
	status := apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind(req.Kind.Kind).GroupKind(), req.Name, faults).ErrStatus
	status.Message = plain(status.Message)
	return refusing(status)
}

// configMapFaults says what is wrong with the ConfigMap v1beta1.Telemetry.
func configMapFaults(data map[string]string) (faults field.ErrorList) {
	at := field.NewPath("data")
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if key != v1beta1.TelemetryKey {
			faults = append(faults, field.NotSupported(at, clipped(key, maxAnnotation), []string{v1beta1.TelemetryKey}))
		}
	}
	text, ok := data[v1beta1.TelemetryKey]
	if !ok {
		return append(faults, field.Required(at.Key(v1beta1.TelemetryKey), "the settings; to have none, delete the ConfigMap"))
	}
	_, wrong := telemetry.Parse([]byte(text))
	for _, e := range wrong {
		if path := at.Key(v1beta1.TelemetryKey).String(); e.Field == v1beta1.TelemetryKey {
			e.Field = path
		} else {
			e.Field = path + "." + e.Field
		}
	}
	return append(faults, wrong...)
}
