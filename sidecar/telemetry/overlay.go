package telemetry

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
)

// MaxCapture is how long a capture lasts at most: it is to be wanted again each day.
const MaxCapture = 24 * time.Hour

// The limits of the headers for collectors.
const (
	maxHeaders     = 16
	maxHeaderValue = 4096
)

// With gives the settings as the annotations of a namespace change them. What cannot be understood is a fault, and changes nothing; a
// capture with a fault is none. The faults are the same however late it is. One whose time is over is none, either.
func (s Settings) With(annotations map[string]string, now time.Time) (Settings, field.ErrorList) {
	a := &overlay{from: annotations, path: field.NewPath("metadata", "annotations")}
	if v, ok := annotations[v1beta1.AccessLogAnnotation]; ok {
		if level := Level(v); slices.Contains(levels, level) {
			s.AccessLog.Level = level
		} else {
			a.faults = append(a.faults, field.NotSupported(a.path.Key(v1beta1.AccessLogAnnotation), Level(clip(v, 40)), levels))
		}
	}
	a.share(v1beta1.AccessLogSampleAnnotation, &s.AccessLog.Sample)
	a.share(v1beta1.TraceSampleAnnotation, &s.Traces.Sample)

	before := len(a.faults)
	c := &Capture{Sample: DefaultCaptureSample, Bytes: DefaultCaptureBytes}
	a.share(v1beta1.CaptureSampleAnnotation, &c.Sample)
	if v, ok := annotations[v1beta1.CaptureBytesAnnotation]; ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > MaxCaptureBytes || strings.HasPrefix(v, "+") {
			a.invalid(v1beta1.CaptureBytesAnnotation, captureBytesRemedy)
		}
		c.Bytes = n
	}
	s.Capture = nil
	if v, ok := annotations[v1beta1.CaptureUntilAnnotation]; ok {
		until, err := time.Parse(time.RFC3339, v)
		switch {
		case err != nil || len(v) > 40:
			a.invalid(v1beta1.CaptureUntilAnnotation, "must be a time such as 2026-11-23T18:00:00Z")
		case until.After(now.Add(MaxCapture)):
			a.invalid(v1beta1.CaptureUntilAnnotation, "must be within 24 hours from now: write an earlier time, and another one when that is over")
		}
		if c.Until = until.UTC(); len(a.faults) == before && until.After(now) {
			s.Capture = c
		}
	}
	return s, a.faults
}

// overlay reads annotations.
type overlay struct {
	from   map[string]string
	path   *field.Path
	faults field.ErrorList
}

func (a *overlay) invalid(name, why string) {
	a.faults = append(a.faults, field.Invalid(a.path.Key(name), clip(a.from[name], 40), why))
}

func (a *overlay) share(name string, to *float64) {
	v, ok := a.from[name]
	if !ok {
		return
	}
	// No exponents, signs, NaN and the like: a share that is hard to read is a mistake.
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || len(v) > 20 || strings.Trim(v, "0123456789.") != "" || f > 1 {
		a.invalid(name, shareRemedy)
		return
	}
	*to = f
}

// reservedHeaders are what the exporter or HTTP itself says.
var reservedHeaders = []string{"connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive",
	"proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

// WithHeaders gives the settings with headers for the collector: the data of the Secret v1beta1.Telemetry. Those with a fault are left out.
// A line break at the end, which editors leave, is no part of a value. No fault tells a value.
func (s Settings) WithHeaders(data map[string][]byte) (Settings, field.ErrorList) {
	s.Traces.Headers = nil
	var faults field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(data)) {
		path, value := field.NewPath("data").Key(clip(name, 60)), strings.TrimRight(string(data[name]), "\r\n")
		switch {
		case !httpguts.ValidHeaderFieldName(name) || slices.Contains(reservedHeaders, strings.ToLower(name)):
			faults = append(faults, field.Forbidden(path, "is no name of a header that can be sent: rename it, such as Authorization"))
		case !httpguts.ValidHeaderFieldValue(value) || value == "" || len(value) > maxHeaderValue:
			faults = append(faults, field.Forbidden(path, fmt.Sprintf("is no value of a header: it must be one line of %d characters at most", maxHeaderValue)))
		case len(s.Traces.Headers) == maxHeaders:
			faults = append(faults, field.TooMany(field.NewPath("data"), len(data), maxHeaders))
			return s, faults
		default:
			if s.Traces.Headers == nil {
				s.Traces.Headers = map[string]string{}
			}
			s.Traces.Headers[name] = value
		}
	}
	return s, faults
}
