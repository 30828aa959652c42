package telemetry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
)

// The limits of what people write. The controller copies it to every namespace, and every sidecar holds it.
const (
	MaxText    = 64 << 10 // bytes of YAML
	MaxPrices  = 1000
	maxWritten = 2 * MaxText // of JSON
	maxTold    = 20          // faults at once: whoever reads them mends the first
)

// Parse reads the YAML form. It gives all faults, each with its path and remedy, and settings only where there are none.
func Parse(text []byte) (Settings, field.ErrorList) {
	whole := field.NewPath(v1beta1.TelemetryKey)
	if len(text) > MaxText {
		return Settings{}, field.ErrorList{field.TooLong(whole, "", MaxText)}
	}
	plain, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return Settings{}, field.ErrorList{field.Invalid(whole, "", "cannot be read as YAML: "+clip(strings.TrimPrefix(err.Error(), "yaml: "), 200))}
	}
	var content any
	in := json.NewDecoder(bytes.NewReader(plain))
	in.UseNumber()
	if err := in.Decode(&content); err != nil {
		return Settings{}, field.ErrorList{field.Invalid(whole, "", "cannot be read: write it as the example in config/telemetry")}
	}
	s := *Default()
	r := &reader{}
	r.object(nil, content, fields{
		"accessLog": func(p *field.Path, v any) {
			r.object(p, v, fields{"level": r.level(&s.AccessLog.Level), "sample": r.number(&s.AccessLog.Sample)})
		},
		"traces": func(p *field.Path, v any) {
			r.object(p, v, fields{
				"endpoint": r.text(&s.Traces.Endpoint), "sample": r.number(&s.Traces.Sample), "caBundle": r.text(&s.Traces.CABundle),
				"headers": func(p *field.Path, _ any) {
					r.faults = append(r.faults, field.Forbidden(p, fmt.Sprintf("headers may be keys of others: put them into Secret %s, a key each", v1beta1.Telemetry)))
				},
			})
		},
		"prices": func(p *field.Path, v any) {
			r.object(p, v, fields{"currency": r.text(&s.Prices.Currency), "models": func(p *field.Path, v any) { r.prices(p, v, &s.Prices) }})
		},
		"capture": func(p *field.Path, _ any) {
			r.faults = append(r.faults, field.Forbidden(p, fmt.Sprintf("prompts and answers are for a namespace to show, for a stated time: annotate it with %s", v1beta1.CaptureUntilAnnotation)))
		},
	})
	faults := r.with(s.judge())
	if len(faults) > 0 {
		if more := len(faults) - maxTold; more > 0 {
			faults = append(faults[:maxTold:maxTold], field.Invalid(whole, "", fmt.Sprintf("%d faults more", more)))
		}
		return Settings{}, faults
	}
	if written, err := s.Encode(); err != nil || len(written) > maxWritten { // anchors make much of little
		return Settings{}, field.ErrorList{field.TooLong(whole, "", MaxText)}
	}
	s.Prices.index = newPriceIndex(s.Prices.Models)
	return s, nil
}

// fields says how to read those of an object.
type fields map[string]func(*field.Path, any)

// reader takes values out of what was decoded, and notes what does not fit. What is not written, or null, leaves the default.
type reader struct{ faults field.ErrorList }

// with gives what is wrong with the values, too, but of those that could not be read.
func (r *reader) with(judged field.ErrorList) field.ErrorList {
	unread := map[string]bool{}
	for _, e := range r.faults {
		unread[e.Field] = true
	}
	all := r.faults
	for _, e := range judged {
		item, _, _ := strings.Cut(e.Field, "].")
		if !unread[e.Field] && !unread[item+"]"] {
			all = append(all, e)
		}
	}
	return all
}

func (r *reader) wrong(p *field.Path, v any, wanted string) {
	r.faults = append(r.faults, field.TypeInvalid(p, clip(fmt.Sprint(v), 40), wanted))
}

func (r *reader) object(p *field.Path, v any, known fields) {
	if v == nil {
		return
	}
	o, ok := v.(map[string]any)
	whole := p
	if p == nil {
		whole = field.NewPath(v1beta1.TelemetryKey)
	}
	if !ok {
		r.wrong(whole, v, "must have the fields "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		read, ok := known[name]
		switch {
		case !ok:
			r.faults = append(r.faults, field.NotSupported(whole, clip(name, 40), slices.Sorted(maps.Keys(known))))
		case o[name] != nil:
			read(p.Child(name), o[name])
		}
	}
}

func (r *reader) text(to *string) func(*field.Path, any) {
	return func(p *field.Path, v any) {
		s, ok := v.(string)
		if !ok {
			r.wrong(p, v, "must be text: put it in quotes")
			return
		}
		*to = s
	}
}

func (r *reader) number(to *float64) func(*field.Path, any) {
	return func(p *field.Path, v any) {
		n, ok := v.(json.Number)
		if !ok {
			r.wrong(p, v, "must be a number, without quotes")
			return
		}
		f, err := n.Float64()
		if err != nil {
			r.wrong(p, v, "must be a number that is less large")
			return
		}
		*to = f
	}
}

func (r *reader) level(to *Level) func(*field.Path, any) {
	return func(p *field.Path, v any) {
		switch v := v.(type) {
		case string:
			*to = Level(v)
		case bool: // off without quotes is false in YAML
			if *to = Off; v {
				r.faults = append(r.faults, field.NotSupported(p, "on", levels))
			}
		default:
			r.wrong(p, v, "must be all, errors or off")
		}
	}
}

func (r *reader) prices(p *field.Path, v any, to *Prices) {
	list, ok := v.([]any)
	if !ok {
		r.wrong(p, v, "must be a list")
		return
	}
	if len(list) > MaxPrices {
		r.faults = append(r.faults, field.TooMany(p, len(list), MaxPrices))
		return
	}
	to.Models = make([]Price, len(list))
	for i, v := range list {
		m, p := &to.Models[i], p.Index(i)
		cached := -1.0
		given := map[string]bool{}
		number := func(name string, to *float64) func(*field.Path, any) {
			return func(p *field.Path, v any) { given[name] = true; r.number(to)(p, v) }
		}
		if _, ok := v.(map[string]any); !ok {
			r.wrong(p, v, "must have the fields model, input and output")
			continue
		}
		r.object(p, v, fields{
			"provider": r.text(&m.Provider), "model": r.text(&m.Model),
			"input": number("input", &m.Input), "cached": number("cached", &cached), "output": number("output", &m.Output),
		})
		if given["cached"] {
			m.Cached = &cached
		}
		for _, name := range []string{"input", "output"} { // 0 would be a price, and nobody may have meant it
			if !given[name] {
				r.faults = append(r.faults, field.Required(p.Child(name), "what a million tokens cost; 0 where they cost nothing"))
			}
		}
	}
}

// clip keeps the beginning of what may be long.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
