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
	// The answer may name a dated version of a model that the price list has by its plain name, or the other way round.
	for _, model := range [...]string{r.ResponseModel, r.RequestModel} {
		if price := s.Prices.Of(r.Provider, model); price != nil && model != "" {
			u := &r.Usage
			r.Priced, r.Cost = true, price.Cost(u.Input+u.EstimatedInput, u.Cached, u.Output+u.EstimatedOutput)
			break
		}
	}
	o.counted.Observe(r, cmp.Or(s.Prices.Currency, telemetry.DefaultCurrency))
	o.log.Record(r, s)
	o.spans.Record(r, s)
}
