package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

// meanwhile does what may take long while the channel goes on to hear what is wanted. Once that is another release, what
// is done is cancelled, and whatever comes of it is errSuperseded.
func (ch *channel) meanwhile(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done, release, superseded := make(chan error, 1), ch.wanted.decision.Serve, false
	go func() { done <- do(ctx) }()
	for {
		select {
		case err := <-done:
			if superseded {
				return errSuperseded
			}
			return err
		case <-ch.check.C:
			ch.coolOnceDue()
		case next := <-ch.mail:
			ch.hear(next)
			if next.decision.Serve != release {
				superseded = true
				cancel()
			}
		}
	}
}

// commit makes the publication that r serves by durable. Nothing switches before this returns nil. Meanwhile the newest
// word may have become another: what it does not allow is not committed. What is durable by then and still allowed is to
// serve, until the newest does: what it replaces is behind the floor.
func (ch *channel) commit(ctx context.Context, r *running) error {
	d := ch.wanted.decision
	p := ch.progress.Load()
	for r.epoch.Load() != ch.wanted.decision.Epoch || ch.wanted.decision.Serve != r.release {
		t := ch.wanted
		if r.release != t.decision.Serve || !r.suits(t.decision) {
			return errSuperseded
		}
		if p == nil || p.release != r.release {
			p = ch.begin(r.release)
		}
		// A disk that does not answer must not keep the channel from hearing that it has to stop.
		var recorded, done bool
		err := ch.meanwhile(ctx, func(ctx context.Context) error {
			return ch.c.during(ctx, p, phaseRecord, func(ctx context.Context) (err error) {
				recorded, done, err = ch.accept(ctx, r, t)
				return err
			})
		})
		newest := ch.wanted.decision
		if done {
			r.epoch.Store(t.decision.Epoch)
			r.publication.Store(&t.decision.Publication)
			if errors.Is(err, errSuperseded) && newest.Allows(r.release) && r.suits(newest) {
				d = t.decision
				break
			}
		}
		if err != nil {
			if recorded && ch.current.Load() != r {
				ch.noteStop(r, "it did not come to serve: "+firstLine(err))
			}
			return err
		}
		d = newest
	}
	if !r.suits(ch.wanted.decision) {
		return errSuperseded
	}
	r.fallback.Store(d.Fallback)
	ch.noteGrounds(r)
	why := d.Stale
	if d.Fallback {
		why = "an older release serves, what is newer no longer counts: " + whyNot(d)
	}
	ch.set(StateReady, why)
	return nil
}

// accept records that r is about to serve, and then has the floor remember it. A crash between the two leaves a record of
// what did not happen, and never the reverse. It reports whether the record may be there, and whether the floor remembers.
func (ch *channel) accept(ctx context.Context, r *running, t target) (recorded, done bool, err error) {
	if _, err := ch.c.cfg.Trail.Append(ctx, ch.switching(r, t.decision)); err != nil {
		return ctx.Err() != nil, false, fmt.Errorf("record the switch: %w", err)
	}
	now := ch.c.cfg.Now()
	raise := false
	err = ch.c.cfg.State.Raise(func(f trust.Floor) trust.Floor {
		// Whoever waits for a disk may hear meanwhile that this is not to serve: then the floor is not its.
		if raise = ctx.Err() == nil; !raise {
			return f
		}
		return f.Accept(ch.name, t.decision, t.policy, now)
	})
	if err == nil && !raise {
		err = context.Cause(ctx)
	}
	return true, raise && err == nil, err
}
