package telemetry

import (
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

func TestThePriceOfAModelIsTheFirstThatFits(t *testing.T) {
	qwen := routing.Ref{Kind: "LLMProvider", Namespace: "apps", Name: "qwen"}
	models := []Price{
		{Provider: "apps/qwen", Model: "qwen-max", Input: 1},
		{Provider: "qwen", Model: "qwen-*", Input: 2},
		{Provider: "other/qwen", Model: "qwen-turbo", Input: 3},
		{Model: "gpt-*-mini", Input: 4},
		{Model: "gpt-4*", Input: 5},
		{Model: "gpt-4o", Input: 6},
		{Model: "*a*b*", Input: 7},
	}
	for _, p := range []*Prices{{Models: models}, {Models: models, index: newPriceIndex(models)}} {
		f := func(provider routing.Ref, model string, want float64) {
			t.Helper()
			got := 0.0
			if price := p.Of(provider, model); price != nil {
				got = price.Input
			}
			if got != want {
				t.Errorf("%s of %s: price %v, want %v", model, provider.Path(), got, want)
			}
		}
		elsewhere := routing.Ref{Namespace: "other", Name: "qwen"}
		f(qwen, "qwen-max", 1)
		f(elsewhere, "qwen-max", 2)
		f(elsewhere, "qwen-turbo", 2)
		f(routing.Ref{Namespace: "apps", Name: "openai"}, "qwen-max", 0)
		f(qwen, "gpt-4o-mini", 4)
		f(qwen, "gpt-4o", 5)
		f(qwen, "gpt--mini", 4)
		f(qwen, "gpt-mini", 0)
		f(qwen, "xaxbx", 7)
		f(qwen, "ab", 7)
		f(qwen, "ba", 0)
		f(qwen, "", 0)
		f(qwen, strings.Repeat("ab", 1000), 0)
	}
}

func TestAPriceIsFoundWithoutMemory(t *testing.T) {
	var models []Price
	for range MaxPrices {
		models = append(models, Price{Provider: "apps/qwen", Model: "*a*a*a*a*a*a*a*a*z"})
	}
	p := &Prices{Models: models, index: newPriceIndex(models)}
	name := strings.Repeat("a", maxModelName)
	if n := testing.AllocsPerRun(10, func() { p.Of(routing.Ref{Namespace: "apps", Name: "qwen"}, name) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCachedTokensCostLess(t *testing.T) {
	cached := 0.5
	f := func(p Price, input, cached, output int64, want float64) {
		t.Helper()
		if got := p.Cost(input, cached, output); got != want {
			t.Errorf("cost %v, want %v", got, want)
		}
	}
	p := Price{Input: 2, Cached: &cached, Output: 8}
	f(p, 1_000_000, 0, 1_000_000, 10)
	f(p, 1_000_000, 500_000, 0, 1.25)
	f(p, 1_000_000, 2_000_000, 0, 0.5)
	f(p, -1, -1, -1, 0)
	f(Price{Input: 2, Output: 8}, 1_000_000, 500_000, 0, 2)
}

func BenchmarkPrice(b *testing.B) {
	var models []Price
	for i := range MaxPrices {
		models = append(models, Price{Model: "model-" + strings.Repeat("x", i%50) + "-*", Input: float64(i)})
	}
	p := &Prices{Models: models, index: newPriceIndex(models)}
	provider := routing.Ref{Namespace: "apps", Name: "qwen"}
	b.ReportAllocs()
	for b.Loop() {
		p.Of(provider, "qwen-max-2026")
	}
}
