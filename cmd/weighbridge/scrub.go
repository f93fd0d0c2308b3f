package main

import (
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/scrub"
)

// newScrubber reads again what the catalog may need, by the configuration in force.
func newScrubber(cat *catalog.Catalog, current *atomic.Pointer[configs.Gateway], trail scrub.Trail, meter metric.Meter, log *slog.Logger) (*scrub.Scrubber, error) {
	return scrub.New(scrub.Config{
		Needs: catalog.NewNeeds(cat).List,
		Terms: func() scrub.Terms {
			cfg := current.Load()
			every, _ := cfg.Scrub.Interval() // configs has checked it
			return scrub.Terms{Dirs: cfg.Weights, Every: every, Rate: cfg.Scrub.BytesPerSecond()}
		},
		Trail: trail, Log: log, Meter: meter,
	})
}

// operatorsView is the catalog as operators see it: with what is wrong with stored weights and with the gateway's identity.
type operatorsView struct {
	*catalog.Catalog
	scrubber *scrub.Scrubber
	identity *identity.Source
}

// Problems implements [control.Catalog].
func (o operatorsView) Problems() []string {
	problems := append(o.Catalog.Problems(), o.scrubber.Problems()...)
	if problem := o.identity.Problem(time.Now()); problem != "" {
		problems = append(problems, problem)
	}
	return problems
}
