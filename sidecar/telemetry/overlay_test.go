package telemetry

import (
	"maps"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestANamespaceSaysWhatIsToldOfIt(t *testing.T) {
	said := map[string]string{
		v1beta1.AccessLogAnnotation: "errors", v1beta1.AccessLogSampleAnnotation: "0.25", v1beta1.TraceSampleAnnotation: "1",
		v1beta1.CaptureUntilAnnotation: "2026-11-23T14:00:00+01:00", v1beta1.CaptureSampleAnnotation: "0.5", v1beta1.CaptureBytesAnnotation: "100",
		"other": "x",
	}
	before := maps.Clone(said)
	base := Default()
	s, faults := base.With(said, noon)
	if len(faults) > 0 {
		t.Fatal(faults.ToAggregate())
	}
	want := Settings{AccessLog: AccessLog{Errors, 0.25}, Traces: Traces{Sample: 1}, Prices: base.Prices, Capture: &Capture{noon.Add(time.Hour), 0.5, 100}}
	if !s.Equal(&want) {
		t.Errorf("%+v", s)
	}
	if !base.Equal(Default()) || !maps.Equal(said, before) {
		t.Error("what was handed in has changed")
	}
	if s, _ = s.With(nil, noon); s.Capture != nil {
		t.Error("a capture outlives its annotation")
	}
}

func TestACaptureIsForAStatedTimeOfADayAtMost(t *testing.T) {
	f := func(until string, captures, fault bool) {
		t.Helper()
		s, faults := Default().With(map[string]string{v1beta1.CaptureUntilAnnotation: until}, noon)
		if (s.Capture != nil) != captures || (len(faults) > 0) != fault {
			t.Errorf("%s: %+v, %v", until, s.Capture, faults)
		}
	}
	f("2026-11-24T12:00:00Z", true, false)
	f("2026-11-24T12:00:01Z", false, true)
	f("2999-01-01T00:00:00Z", false, true)
	f("2026-11-23T12:00:00Z", false, false)
	f("2020-01-01T00:00:00Z", false, false)
	f("tomorrow", false, true)
	f("", false, true)
	f("2026-11-23", false, true)
	f("2026-11-23T13:00:00", false, true)
	f("2026-11-23T13:00:00."+strings.Repeat("0", 100000)+"Z", false, true)
}

func TestAHostileAnnotationChangesNothing(t *testing.T) {
	numbers := []string{"", " ", "2", "-1", "+1", "NaN", "Inf", "1e-3", "0x1p-2", "0,5", "1_0", "½", "0.5 ", "..", strings.Repeat("9", 250_000), "0\n", "\x00"}
	for _, name := range []string{v1beta1.AccessLogSampleAnnotation, v1beta1.TraceSampleAnnotation, v1beta1.CaptureSampleAnnotation, v1beta1.CaptureBytesAnnotation} {
		for _, value := range numbers {
			if name == v1beta1.CaptureBytesAnnotation && value == "2" {
				continue
			}
			s, faults := Default().With(map[string]string{name: value, v1beta1.CaptureUntilAnnotation: "2026-11-23T13:00:00Z"}, noon)
			if len(faults) != 1 || s.AccessLog != Default().AccessLog || s.Traces.Sample != DefaultTraceSample {
				t.Fatalf("%s: %.20q: %+v, %v", name, value, s, faults)
			}
			if strings.HasPrefix(name, "remora.dev/capture") && s.Capture != nil {
				t.Errorf("%s: %.20q: captures", name, value)
			}
			if e := faults[0].Error(); len(e) > 400 || !strings.Contains(e, "metadata.annotations["+name+"]") {
				t.Errorf("%s", e)
			}
		}
	}
	for _, level := range []string{"", "ALL", "false", "all ", strings.Repeat("a", 250_000)} {
		s, faults := Default().With(map[string]string{v1beta1.AccessLogAnnotation: level}, noon)
		if len(faults) != 1 || s.AccessLog.Level != All || len(faults[0].Error()) > 300 {
			t.Errorf("%.20q: %v", level, faults)
		}
	}
}
