package scrub

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// observe makes the metrics show what is known when somebody asks.
func (s *Scrubber) observe(m metric.Meter) error {
	bad, err := m.Int64ObservableGauge("weighbridge.scrub.bad",
		metric.WithDescription("stored copies of what the channel may need that are bad, and things of which there is no copy"))
	if err != nil {
		return err
	}
	since, err := m.Float64ObservableGauge("weighbridge.scrub.time", metric.WithUnit("s"),
		metric.WithDescription("Unix time since which every stored copy of what the channel may need was read; nothing until then"))
	if err != nil {
		return err
	}
	_, err = m.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		for name, c := range s.shown.Load().channels {
			channel := metric.WithAttributes(attribute.String("channel", name))
			to.ObserveInt64(bad, c.bad, channel)
			if !c.since.IsZero() {
				to.ObserveFloat64(since, float64(c.since.UnixMilli())/1e3, channel)
			}
		}
		return nil
	}, bad, since)
	return err
}
