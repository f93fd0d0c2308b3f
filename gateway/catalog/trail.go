package catalog

import (
	"context"
	"errors"
	"slices"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A Trail is where acts are recorded. Its methods may be called concurrently.
type Trail interface {
	// Append returns once the record is durable. What adds to or replaces what is served takes effect only after that.
	Append(ctx context.Context, r audit.Record) (int64, error)
	// Note never blocks and never fails. It is for what only reduces what is served, and for what is merely of interest.
	Note(r audit.Record)
	// Records calls visit for each record of the log, in order.
	Records(visit func(audit.Record) error) error
}

// switching is the record that a channel is about to serve r, as its publication says or in place of one that no longer counts.
func (ch *channel) switching(r *running, d trust.Channel) audit.Record {
	kind, why := audit.KindSwitch, ""
	floor := ch.c.cfg.State.Floor().Channels[ch.name]
	switch {
	case d.Fallback:
		kind, why = audit.KindRollback, "what is newer no longer counts"
	case slices.Contains(floor.Served, r.release) && floor.Epoch > 0 && d.Epoch > floor.Epoch && floor.Served[len(floor.Served)-1] != r.release:
		kind = audit.KindRollback
	case d.Epoch == floor.Epoch:
		why = "brought up again"
	}
	return audit.Record{
		Kind: kind, Channel: ch.name, Release: r.release, Statement: d.Publication, Level: string(r.level), Why: why,
	}
}

// noteStop records that a channel serves a release no more.
func (ch *channel) noteStop(r *running, why string) {
	ch.c.cfg.Trail.Note(audit.Record{Kind: audit.KindStop, Channel: ch.name, Release: r.release, Why: why})
}

// noteLoad records that weights were loaded for a channel, or why they were not.
func (ch *channel) noteLoad(r *running, err error) {
	switch {
	case errors.Is(err, errSuperseded), errors.Is(err, context.Canceled):
	case err != nil:
		ch.c.cfg.Trail.Note(audit.Record{Kind: audit.KindLoad, Channel: ch.name, Release: ch.wanted.decision.Serve, Why: firstLine(err)})
	default:
		ch.c.cfg.Trail.Note(audit.Record{Kind: audit.KindLoad, Channel: ch.name, Release: r.release, Level: string(r.level)})
	}
}

// noteWithdrawn records what a decision took away that was there before, once, however often saving that fails.
func (c *Catalog) noteWithdrawn(before, after trust.Floor) {
	for _, w := range after.Withdrawn {
		if slices.Contains(before.Withdrawn, w) || c.noted[w] {
			continue
		}
		c.noted[w] = true
		r := audit.Record{Kind: audit.KindWithdrawal, Channel: w.Channel, Release: w.Release}
		if w.Weights != "" {
			r.Why = "weights " + w.Weights
		}
		c.cfg.Trail.Note(r)
	}
}
