package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/telemetry"
)

// telemetrySettings are those of the installation, which the annotations of namespaces change.
type telemetrySettings struct {
	configMaps client.Reader // caches the ConfigMap v1beta1.Telemetry alone

	mu       sync.Mutex
	settings *telemetry.Settings // the last good ones, without headers; nil: there have been none since this process began
	headers  map[string]string
	version  string // of the ConfigMap that was judged last; empty: there is none
	secret   string // the same of the Secret of headers
	faults   field.ErrorList
	refused  field.ErrorList // headers
}

// base gives the settings of the installation; nil where the ConfigMap is bad and nothing better is known.
func (k *keeper) base(ctx context.Context) (*telemetry.Settings, error) {
	t := k.telemetry
	t.mu.Lock()
	defer t.mu.Unlock()
	id := types.NamespacedName{Namespace: k.namespace, Name: v1beta1.Telemetry}
	var found corev1.ConfigMap
	if err := t.configMaps.Get(ctx, id, &found); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("ConfigMap %s cannot be read: %w", v1beta1.Telemetry, err)
	} else if err != nil {
		t.settings, t.version, t.faults = telemetry.Default(), "", nil
	} else if version := string(found.UID) + " " + found.ResourceVersion; t.version != version {
		s, faults := telemetry.Parse([]byte(found.Data[v1beta1.TelemetryKey]))
		if t.version, t.faults = version, faults; len(faults) == 0 {
			t.settings = &s
		}
		k.tellInstallation("ConfigMap", found.UID, "the last good ones stay in use", faults)
	}
	head, err := k.head(ctx, id)
	if err != nil {
		return nil, err
	}
	if head == nil {
		t.headers, t.secret, t.refused = nil, "", nil
	} else if version := string(head.UID) + " " + head.ResourceVersion; t.secret != version {
		secret, err := liveSecret(ctx, k.live, id)
		if err != nil {
			return nil, err
		}
		var s telemetry.Settings
		if secret != nil {
			s, t.refused = s.WithHeaders(secret.Data)
		}
		t.headers, t.secret = s.Traces.Headers, version
		k.tellInstallation("Secret", head.UID, "they are not sent", t.refused)
	}
	codes := map[string]bool{}
	if len(t.faults)+len(t.refused) > 0 {
		codes[telemetryInvalid] = true
	}
	k.gauge.setInstallation(codes)
	if t.settings == nil {
		return nil, nil
	}
	s := *t.settings
	s.Traces.Headers = t.headers
	return &s, nil
}

// tellInstallation says what is wrong with an object of the installation's, once.
func (k *keeper) tellInstallation(kind string, uid types.UID, then string, faults field.ErrorList) {
	if len(faults) == 0 {
		return
	}
	message := fmt.Sprintf("settings of telemetry are refused, and %s: %s", then, faults.ToAggregate())
	k.log.Info("settings of telemetry cannot be used", "kind", kind, "namespace", k.namespace, "name", v1beta1.Telemetry, "code", telemetryInvalid, "why", message)
	regarding := &corev1.ObjectReference{APIVersion: "v1", Kind: kind, Namespace: k.namespace, Name: v1beta1.Telemetry, UID: uid}
	k.events.Eventf(regarding, nil, corev1.EventTypeWarning, telemetryInvalid, "KeepAccess", "%s", clipped(plain(message), maxNote))
}

// telemetryEntry gives what a namespace's sidecars are to tell; empty where that is what they do unasked. kept is what they have now.
func (k *keeper) telemetryEntry(ctx context.Context, ns metav1.Object, kept []byte) (string, []trouble, error) {
	base, err := k.base(ctx)
	if err != nil {
		return "", nil, err
	}
	if base == nil { // the best that is known is what was made of the last good settings, before this process began
		base = telemetry.Default()
		if before, err := telemetry.Decode(kept); err == nil {
			base = &before
		}
	}
	s, faults := base.With(ns.GetAnnotations(), k.times.now())
	var troubles []trouble
	for _, e := range faults {
		troubles = append(troubles, trouble{telemetryInvalid, "Annotation", e.Field, fmt.Sprintf("%v. It is as if it were not there", e)})
	}
	if s.Equal(telemetry.Default()) {
		return "", troubles, nil
	}
	text, err := s.Encode()
	return string(text), troubles, err
}

// captureEnd gives the time until a namespace's capture is over; zero: there is none. Sidecars end it by themselves: this only clears it away.
func (k *keeper) captureEnd(entry string) time.Duration {
	if s, err := telemetry.Decode([]byte(entry)); err == nil && s.Capture != nil {
		return max(s.Capture.Until.Sub(k.times.now()), time.Second)
	}
	return 0
}

// telemetryAnnotations are those of a namespace that say something of telemetry.
var telemetryAnnotations = []string{
	v1beta1.AccessLogAnnotation, v1beta1.AccessLogSampleAnnotation, v1beta1.TraceSampleAnnotation,
	v1beta1.CaptureUntilAnnotation, v1beta1.CaptureSampleAnnotation, v1beta1.CaptureBytesAnnotation,
}

// maxAnnotation is how much is kept of such an annotation: more than any that is right has.
const maxAnnotation = 64
