package telemetry

import (
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(good), "qwen-max")
	f.Add([]byte("accessLog: {level: off}"), "")
	f.Add([]byte("prices: {models: [{model: '*', input: 1, output: 1}]}"), "a*b")
	f.Fuzz(func(t *testing.T, text []byte, model string) {
		s, faults := Parse(text)
		if len(faults) > 0 {
			return
		}
		encoded, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(encoded)
		if err != nil {
			t.Fatalf("%v: %s", err, encoded)
		}
		if !back.Equal(&s) {
			t.Fatalf("%s came back otherwise", encoded)
		}
		slow := Prices{Models: s.Prices.Models}
		provider := routing.Ref{Namespace: "apps", Name: "qwen"}
		if s.Prices.Of(provider, model) != slow.Of(provider, model) {
			t.Fatalf("the index gives another price of %q", model)
		}
	})
}

func FuzzWith(f *testing.F) {
	f.Add("all", "0.5", "2026-11-23T13:00:00Z", "100")
	f.Fuzz(func(t *testing.T, level, share, until, bytes string) {
		s, _ := Default().With(map[string]string{
			v1beta1.AccessLogAnnotation: level, v1beta1.AccessLogSampleAnnotation: share, v1beta1.TraceSampleAnnotation: share, v1beta1.CaptureSampleAnnotation: share,
			v1beta1.CaptureUntilAnnotation: until, v1beta1.CaptureBytesAnnotation: bytes,
		}, noon)
		text, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(text); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if c := s.Capture; c != nil && (c.Until.After(noon.Add(MaxCapture)) || !c.Until.After(noon)) {
			t.Fatalf("captures until %s", c.Until.Format(time.RFC3339))
		}
	})
}
