package catalog

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// ExpiryTime returns the gauge by which every part of a gateway says when something ends, as the metrics have it once.
func ExpiryTime(m metric.Meter) (metric.Float64ObservableGauge, error) {
	return m.Float64ObservableGauge("weighbridge.expiry.time", metric.WithUnit("s"),
		metric.WithDescription("Unix time at which the policy, the gateway's SVID, or what a channel's release rests on ends; "+
			"of approvals and evaluations, when too few are left"))
}

// Expiry is one value of [ExpiryTime].
func Expiry(at time.Time) float64 { return float64(at.UnixMilli()) / 1e3 }

// outlook are the metrics that say what each channel does, why it does not serve, and what will end.
type outlook struct {
	expiry                             metric.Float64ObservableGauge
	serving, refused, fallback, frozen metric.Int64ObservableGauge
	memory                             metric.Int64ObservableGauge
	cpu                                metric.Float64ObservableGauge
}

// observe makes the metrics show the channels as they are when somebody asks.
func (c *Catalog) observe(m metric.Meter) (err error) {
	var o outlook
	if o.expiry, err = ExpiryTime(m); err != nil {
		return err
	}
	o.memory, err = m.Int64ObservableGauge("weighbridge.runtime.memory", metric.WithUnit("By"),
		metric.WithDescription("memory that the channel's runtimes hold, without the sealed weights, by what they do"))
	if err != nil {
		return err
	}
	o.cpu, err = m.Float64ObservableGauge("weighbridge.runtime.cpu.time", metric.WithUnit("s"),
		metric.WithDescription("processor time that the channel's runtimes have taken since they were started, by what they do"))
	if err != nil {
		return err
	}
	for _, g := range []struct {
		into       *metric.Int64ObservableGauge
		name, text string
	}{
		{&o.serving, "weighbridge.channel.serving", "1 if a release answers on the channel, 0 if none does"},
		{&o.refused, "weighbridge.channel.refused", "1 for each rule by which the channel may serve nothing, or an older release only"},
		{&o.fallback, "weighbridge.channel.fallback", "1 if an older release serves in place of the accepted one"},
		{&o.frozen, "weighbridge.channel.frozen", "1 if what serves lost its quorum, and may go on until it ends"},
	} {
		if *g.into, err = m.Int64ObservableGauge(g.name, metric.WithDescription(g.text)); err != nil {
			return err
		}
	}
	_, err = m.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		if p := c.Policy(); p != nil {
			to.ObserveFloat64(o.expiry, Expiry(p.Expires()), metric.WithAttributes(attribute.String("kind", "policy")))
		}
		for _, ch := range *c.channels.Load() {
			o.tell(to, ch)
		}
		return nil
	}, o.expiry, o.serving, o.refused, o.fallback, o.frozen, o.memory, o.cpu)
	return err
}

// tell reports one channel.
func (o outlook) tell(to metric.Observer, ch *channel) {
	name := attribute.String("channel", ch.name)
	s := ch.status()
	flag := func(g metric.Int64ObservableGauge, on bool) {
		value := int64(0)
		if on {
			value = 1
		}
		to.ObserveInt64(g, value, metric.WithAttributes(name))
	}
	flag(o.serving, s.Release != "" && s.State == StateReady)
	flag(o.fallback, s.Fallback)
	for role, sum := range sums(ch.runtimes()) {
		attrs := metric.WithAttributes(name, attribute.String("role", role))
		to.ObserveInt64(o.memory, sum.Memory, attrs)
		to.ObserveFloat64(o.cpu, sum.CPU.Seconds(), attrs)
	}
	t := ch.decided.Load()
	if t == nil {
		return
	}
	flag(o.frozen, s.Release != "" && statement.ID(s.Release) == t.decision.Frozen)
	for _, rule := range t.refused {
		to.ObserveInt64(o.refused, 1, metric.WithAttributes(name, attribute.String("rule", rule)))
	}
	for _, end := range t.ends {
		if end.Kind != "policy" { // which is all channels'
			to.ObserveFloat64(o.expiry, Expiry(end.At), metric.WithAttributes(name, attribute.String("kind", end.Kind)))
		}
	}
}

// sums are what runtimes take, by their roles.
func sums(all []Runtime) map[string]process.Resources {
	by := map[string]process.Resources{}
	for _, r := range all {
		sum := by[r.Role]
		sum.CPU += r.CPU
		sum.Memory += r.Memory
		by[r.Role] = sum
	}
	return by
}
