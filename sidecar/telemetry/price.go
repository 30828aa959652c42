package telemetry

import (
	"strings"

	"remora.dev/remora/sidecar/routing"
)

// maxModelName is how long a name may be that has a price. Names come from apps, and patterns are compared with them for each request.
const maxModelName = 256

// priceIndex finds a price without looking at all of them: the places of those with a whole name, and of those with a pattern.
type priceIndex struct {
	named    map[string][]int
	patterns []int
}

func newPriceIndex(models []Price) *priceIndex {
	x := &priceIndex{named: make(map[string][]int, len(models))}
	for i := range models {
		if model := models[i].Model; strings.Contains(model, "*") {
			x.patterns = append(x.patterns, i)
		} else {
			x.named[model] = append(x.named[model], i)
		}
	}
	return x
}

// Of gives the price of a model at a provider; nil where there is none. It costs no memory.
func (p *Prices) Of(provider routing.Ref, model string) *Price {
	if len(p.Models) == 0 || model == "" || len(model) > maxModelName {
		return nil
	}
	if p.index == nil { // not made by Parse or Decode
		for i := range p.Models {
			if m := &p.Models[i]; m.isOf(provider) && matches(m.Model, model) {
				return m
			}
		}
		return nil
	}
	best := len(p.Models)
	for _, i := range p.index.named[model] {
		if p.Models[i].isOf(provider) {
			best = i
			break
		}
	}
	for _, i := range p.index.patterns {
		if i > best {
			break
		}
		if m := &p.Models[i]; m.isOf(provider) && matches(m.Model, model) {
			best = i
			break
		}
	}
	if best == len(p.Models) {
		return nil
	}
	return &p.Models[best]
}

// isOf tells whether the price is one of that provider's.
func (p *Price) isOf(provider routing.Ref) bool {
	if p.Provider == "" {
		return true
	}
	namespace, name, ok := strings.Cut(p.Provider, "/")
	if !ok {
		return p.Provider == provider.Name
	}
	return namespace == provider.Namespace && name == provider.Name
}

// matches tells whether a pattern, in which * stands for any characters, is that name.
func matches(pattern, name string) bool {
	first, rest, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == name
	}
	name, ok = strings.CutPrefix(name, first)
	for ok {
		var part string
		var more bool
		if part, rest, more = strings.Cut(rest, "*"); !more {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part) // the first place is as good as any, and leaves the most
	}
	return false
}

// Cost is what tokens cost, in the currency of Prices. cached are some of input.
func (p *Price) Cost(input, cached, output int64) float64 {
	input, output = max(input, 0), max(output, 0)
	cached = min(max(cached, 0), input)
	forCached := p.Input
	if p.Cached != nil {
		forCached = *p.Cached
	}
	return (float64(input-cached)*p.Input + float64(cached)*forCached + float64(output)*p.Output) / 1e6
}
