package otlp

import (
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of OTLP (opentelemetry/proto/trace/v1/trace.proto, version 1) are written by hand on top of protobuf's own primitives: the
// generated types would make the sidecar larger by a tenth, for the eight messages that are here. The tests read what is written with them.

// The fields that are written.
const (
	requestResourceSpans = 1 // ExportTraceServiceRequest

	resourceSpansResource  = 1
	resourceSpansScope     = 2
	resourceSpansSchemaURL = 3

	resourceAttributes = 1

	scopeSpansScope     = 1
	scopeSpansSpans     = 2
	scopeSpansSchemaURL = 3

	scopeName    = 1
	scopeVersion = 2

	spanTraceID    = 1
	spanID         = 2
	spanParentID   = 4
	spanName       = 5
	spanKind       = 6
	spanStart      = 7
	spanEnd        = 8
	spanAttributes = 9
	spanStatus     = 15
	spanFlags      = 16

	statusMessage = 2
	statusCode    = 3

	keyValueKey   = 1
	keyValueValue = 2

	anyString = 1
	anyBool   = 2
	anyInt    = 3
	anyDouble = 4
)

// The values of enumerations that are written.
const (
	kindServer = 2
	kindClient = 3

	statusError = 2
)

// maxText is the longest value of an attribute, in bytes. Some are what apps and providers say.
const maxText = 512

// text makes a string that may be sent: one whose UTF-8 is broken would have the collector refuse all spans beside it.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}

func appendBytes(dst []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), value)
}

func appendString(dst []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), value)
}

func appendVarint(dst []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), value)
}

func appendTime(dst []byte, field protowire.Number, t time.Time) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(dst, field, protowire.Fixed64Type), uint64(t.UnixNano()))
}

// attributes appends to a message whose attributes are one of its fields.
type attributes struct {
	dst   []byte
	field protowire.Number
}

// begin writes all of an attribute but its value, which has so many bytes.
func (a *attributes) begin(key string, value int) {
	size := protowire.SizeTag(keyValueKey) + protowire.SizeBytes(len(key)) + protowire.SizeTag(keyValueValue) + protowire.SizeBytes(value)
	a.dst = protowire.AppendTag(a.dst, a.field, protowire.BytesType)
	a.dst = protowire.AppendVarint(a.dst, uint64(size))
	a.dst = appendString(a.dst, keyValueKey, key)
	a.dst = protowire.AppendTag(a.dst, keyValueValue, protowire.BytesType)
	a.dst = protowire.AppendVarint(a.dst, uint64(value))
}

// text adds an attribute, unless its value is empty.
func (a *attributes) text(key, value string) {
	value = text(value)
	if value == "" {
		return
	}
	a.begin(key, protowire.SizeTag(anyString)+protowire.SizeBytes(len(value)))
	a.dst = appendString(a.dst, anyString, value)
}

// number adds an attribute, unless its value is 0.
func (a *attributes) number(key string, value int64) {
	if value != 0 {
		a.count(key, value)
	}
}

// count adds an attribute, of which 0 is a value like others.
func (a *attributes) count(key string, value int64) {
	a.begin(key, protowire.SizeTag(anyInt)+protowire.SizeVarint(uint64(value)))
	a.dst = appendVarint(a.dst, anyInt, uint64(value))
}

// double adds an attribute, unless it is not a finite number.
func (a *attributes) double(key string, value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	a.begin(key, protowire.SizeTag(anyDouble)+protowire.SizeFixed64())
	a.dst = protowire.AppendFixed64(protowire.AppendTag(a.dst, anyDouble, protowire.Fixed64Type), math.Float64bits(value))
}

// seconds adds an attribute, unless it is 0.
func (a *attributes) seconds(key string, value time.Duration) {
	if value != 0 {
		a.double(key, value.Seconds())
	}
}

// yes adds an attribute that is true, unless it is not.
func (a *attributes) yes(key string, is func() bool) {
	if !is() {
		return
	}
	a.begin(key, protowire.SizeTag(anyBool)+protowire.SizeVarint(1))
	a.dst = appendVarint(a.dst, anyBool, 1)
}
