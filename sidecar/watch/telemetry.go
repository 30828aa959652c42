package watch

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
)

// tuning is what is told of calls. What cannot be read leaves the settings from before in use. It belongs to one goroutine.
type tuning struct {
	read     bool // something has been
	text     string
	settings *telemetry.Settings // nil: nobody has said anything yet
	findings []finding
}

// take reads the entry v1beta1.TelemetryEntry of the Secret keys, and tells whether it is another one; empty: there is none.
func (t *tuning) take(entry string, keys routing.Ref, at place) (changed bool) {
	if t.read && t.text == entry {
		return false
	}
	t.read, t.text, t.findings = true, entry, nil
	if entry == "" {
		t.settings = telemetry.Default()
		return true
	}
	s, err := telemetry.Decode([]byte(entry))
	if err != nil {
		t.findings = []finding{{routing.Problem{
			Object: keys, Severity: routing.Warning, Code: routing.SecretInvalid, Field: "data[" + v1beta1.TelemetryEntry + "]",
			Message: fmt.Sprintf("cannot be read: %v; %s. The controller writes it: bring controller and sidecar to one version", err, oldSettings),
		}, at}}
		return true
	}
	t.settings = &s
	return true
}

const oldSettings = "the settings of telemetry from before stay in use"

// tell logs settings that have come into use. Headers for the collector are none of the log's business.
func (t *tuning) tell(log logr.Logger) {
	s := t.settings
	if s == nil {
		return
	}
	values := []any{"accessLog", string(s.AccessLog.Level), "sample", s.AccessLog.Sample, "traces", s.Traces.Endpoint, "prices", len(s.Prices.Models)}
	if c := s.Capture; c != nil {
		values = append(values, "captureUntil", c.Until.Format(time.RFC3339))
	}
	log.Info("telemetry settings in use", values...)
}

// attune takes in what the Secret of keys says of telemetry, and tells whether that is another thing than before. Where there is no such
// Secret, it is just being made anew, and nothing has been said.
func (a *API) attune() (changed bool) {
	for _, f := range a.feeds {
		if f.kind != secretKind {
			continue
		}
		for _, arrived := range f.arrivals() {
			changed = a.tuning.take(arrived.telemetry, refOf(secretKind, a.Namespace, a.KeysSecret), arrived.at) || changed
		}
	}
	return changed
}

// tune takes in the ConfigMap and the Secret v1beta1.Telemetry that are among the files.
func (t *tuning) tune(all *set) {
	var settings *document
	var at place
	var faults field.ErrorList
	headers := map[string][]byte{}
	text := ""
	for _, c := range all.candidates {
		switch {
		case c.telemetry != nil:
			settings, at, text = c.document, c.at, *c.telemetry
		case c.secret != nil && c.secret.Name == v1beta1.Telemetry:
			for name, value := range c.secret.Data {
				headers[name] = []byte(value.Reveal())
			}
		}
	}
	t.findings = nil
	if settings == nil {
		t.set(telemetry.Default())
		return
	}
	s, faults := telemetry.Parse([]byte(text))
	severity, then := routing.Invalid, "; "+oldSettings
	if len(faults) == 0 {
		s, faults = s.WithHeaders(headers)
		severity, then = routing.Warning, "; it is not sent"
		t.set(&s)
	} else if t.settings == nil {
		t.settings = telemetry.Default()
	}
	for _, e := range faults {
		ref, name := settings.ref, "data["+v1beta1.TelemetryKey+"]."+e.Field
		if severity == routing.Warning {
			ref.Kind, name = secretKind, e.Field
		}
		ref.Namespace = all.namespace
		t.findings = append(t.findings, finding{routing.Problem{Object: ref, Severity: severity, Code: routing.InvalidValue, Field: name, Message: e.ErrorBody() + then}, at})
	}
}

// set puts settings in use, or leaves those that say the same.
func (t *tuning) set(s *telemetry.Settings) {
	if t.settings == nil || !t.settings.Equal(s) {
		t.settings = s
	}
}

// telemetryIn gives what a ConfigMap in a file says of telemetry; nil where it is another one.
func telemetryIn(ref routing.Ref, text []byte) *string {
	if ref.Kind != configMapKind || ref.Name != v1beta1.Telemetry {
		return nil
	}
	var o struct {
		APIVersion string            `json:"apiVersion"`
		Data       map[string]string `json:"data"`
	}
	if yaml.Unmarshal(text, &o) != nil || o.APIVersion != "v1" {
		bad := "\x00" // no YAML, which is told
		return &bad
	}
	says := o.Data[v1beta1.TelemetryKey]
	return &says
}

const configMapKind = "ConfigMap"

// with gives findings and those of the settings of telemetry.
func (t *tuning) with(findings []finding) []finding { return slices.Concat(findings, t.findings) }
