package main

import (
	"cmp"

	"remora.dev/remora/sidecar/accesslog"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace/otlp"
)

// observers are told of each request when it is over.
type observers struct {
	counted *metrics.Set
	log     *accesslog.Log
	spans   *otlp.Exporter
}

func (o *observers) done(r *record.Record, s *telemetry.Settings) {
	price(r, &s.Prices)
	o.counted.Observe(r, cmp.Or(s.Prices.Currency, telemetry.DefaultCurrency))
	o.log.Record(r, s)
	o.spans.Record(r, s)
}

// price says what a request cost. One that took no tokens has no cost, rather than one of 0.
func price(r *record.Record, prices *telemetry.Prices) {
	u := &r.Usage
	input, output := u.Input+u.EstimatedInput, u.Output+u.EstimatedOutput
	if !u.Reported && input == 0 && output == 0 {
		return
	}
	// The answer may name a dated version of a model that the price list has by its plain name, or the other way round.
	for _, model := range [...]string{r.ResponseModel, r.RequestModel} {
		if model == "" {
			continue
		}
		if price := prices.Of(r.Provider, model); price != nil {
			r.Priced, r.Cost = true, price.Cost(input, u.Cached, output)
			return
		}
	}
}
