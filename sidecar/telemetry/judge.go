package telemetry

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

var levels = []Level{All, Errors, Off}

// maxPrice bounds what a million tokens cost, in any currency.
const maxPrice = 1e9

// judge says what is wrong with values, wherever they come from.
func (s *Settings) judge() (faults field.ErrorList) {
	log, traces, prices := field.NewPath("accessLog"), field.NewPath("traces"), field.NewPath("prices")
	if !slices.Contains(levels, s.AccessLog.Level) {
		faults = append(faults, field.NotSupported(log.Child("level"), Level(clip(string(s.AccessLog.Level), 40)), levels))
	}
	faults = append(faults, share(log.Child("sample"), s.AccessLog.Sample)...)
	faults = append(faults, share(traces.Child("sample"), s.Traces.Sample)...)
	if why := endpointFault(s.Traces.Endpoint); why != "" {
		faults = append(faults, field.Invalid(traces.Child("endpoint"), shown(s.Traces.Endpoint), why))
	}
	if s.Traces.CABundle != "" && !hasCertificate(s.Traces.CABundle) {
		faults = append(faults, field.Invalid(traces.Child("caBundle"), clip(s.Traces.CABundle, 40), "there is no certificate in it: give one in PEM, -----BEGIN CERTIFICATE-----"))
	}
	if c := s.Prices.Currency; len(c) != 3 || strings.Trim(c, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		faults = append(faults, field.Invalid(prices.Child("currency"), clip(c, 40), "must be three capital letters, such as USD, EUR or CNY"))
	}
	return append(faults, s.Prices.judge(prices.Child("models"))...)
}

func (p *Prices) judge(path *field.Path) (faults field.ErrorList) {
	type of struct{ provider, model string }
	seen := make(map[of]int, len(p.Models))
	for i := range p.Models {
		m, path := &p.Models[i], path.Index(i)
		switch {
		case m.Model == "":
			faults = append(faults, field.Required(path.Child("model"), "the name of a model, in which * stands for any characters"))
		case len(m.Model) > maxModelName || strings.ContainsFunc(m.Model, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			faults = append(faults, field.Invalid(path.Child("model"), clip(m.Model, 40), fmt.Sprintf("must be a name of %d characters at most, without spaces", maxModelName)))
		}
		if len(m.Provider) > 317 || strings.Count(m.Provider, "/") > 1 || strings.HasPrefix(m.Provider, "/") || strings.HasSuffix(m.Provider, "/") ||
			strings.Trim(m.Provider, "abcdefghijklmnopqrstuvwxyz0123456789-./") != "" {
			faults = append(faults, field.Invalid(path.Child("provider"), clip(m.Provider, 40), "must be NAMESPACE/NAME or NAME of an LLMProvider; leave it out for all"))
		}
		faults = append(faults, amount(path.Child("input"), m.Input)...)
		faults = append(faults, amount(path.Child("output"), m.Output)...)
		if m.Cached != nil {
			faults = append(faults, amount(path.Child("cached"), *m.Cached)...)
		}
		if first, ok := seen[of{m.Provider, m.Model}]; ok && m.Model != "" {
			faults = append(faults, field.Invalid(path.Child("model"), clip(m.Model, 40), fmt.Sprintf("has its price at models[%d], which comes first: remove one of them", first)))
		} else {
			seen[of{m.Provider, m.Model}] = i
		}
	}
	return faults
}

func share(path *field.Path, v float64) field.ErrorList {
	if v >= 0 && v <= 1 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, v, shareRemedy)}
}

const (
	shareRemedy        = "must be a share of the requests, from 0 (none) to 1 (all), such as 0.1"
	captureBytesRemedy = "must be a whole number from 1 to 16384"
)

func amount(path *field.Path, v float64) field.ErrorList {
	if v >= 0 && v <= maxPrice && !math.IsNaN(v) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, v, "must be what a million tokens cost: 0 or more, and at most 1000000000")}
}

// endpointFault says why a collector's address cannot be used; empty where it can, or there is none.
func endpointFault(s string) string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case len(s) > 2048 || err != nil || u.Opaque != "" || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "must be the base URL of a collector that takes OTLP over HTTP, such as http://otel-collector.observability:4318"
	case u.User != nil:
		return "must have no user and password: put an Authorization header into the Secret of headers"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "must have no query and no fragment"
	case strings.HasSuffix(u.Host, ":"):
		return "has an empty port"
	}
	return ""
}

// shown is an address without what may be a password.
func shown(endpoint string) string {
	if before, after, ok := strings.Cut(endpoint, "@"); ok {
		scheme, _, _ := strings.Cut(before, "//")
		endpoint = clip(scheme, 10) + "//…@" + after
	}
	return clip(endpoint, 100)
}

func hasCertificate(text string) bool {
	rest, found := []byte(text), false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return found
		}
		if _, err := x509.ParseCertificate(block.Bytes); block.Type != "CERTIFICATE" || err != nil {
			return false
		}
		found = true
	}
}
