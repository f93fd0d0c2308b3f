package catalog

import (
	"context"
	"sync"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// What served before stays warm: its runtime runs on beside the one that serves, so that a rollback is the switch of a
// pointer. It goes when its memory is needed, when it was withdrawn, when its runtime fails, and when a third release
// serves. It serves nothing: only step brings it back, by a decision and its record like any other release.

// keep makes what served before the channel's warm release, or retires it where it can't be kept.
func (ch *channel) keep(old *running) {
	if st := old.backend.Status(); st.State != backends.Ready || st.GaveBack || ch.withdrawn(ch.wanted.decision, old) || ch.c.cfg.Pool.Short() {
		ch.retire(old, drainLimit)
		return
	}
	old.epoch.Store(0) // whatever it serves next has yet to be recorded
	ch.warmSince = ch.c.cfg.Now()
	ch.retire(ch.warm.Swap(old), drainLimit)
}

// takeWarm returns the warm release if it is the one that is wanted, nil otherwise. It is nobody's then but the caller's.
func (ch *channel) takeWarm(d trust.Channel) *running {
	w := ch.warm.Load()
	if w == nil || w.release != d.Serve || w.backend.Status().State != backends.Ready || !w.suits(d) {
		return nil
	}
	if !ch.warm.CompareAndSwap(w, nil) {
		return nil
	}
	return w
}

// coolOnceDue lets the warm release go once there is a reason to. Requests from when it served are one after drainLimit.
func (ch *channel) coolOnceDue() {
	w := ch.warm.Load()
	if w == nil {
		return
	}
	late := w.requests() > 0 && ch.c.cfg.Now().Sub(ch.warmSince) >= drainLimit
	if (late || w.backend.Status().State == backends.Failed || ch.c.cfg.Pool.Short()) && ch.warm.CompareAndSwap(w, nil) {
		ch.retire(w, 0)
	}
}

// interrupt ends at once what a decision says was withdrawn, whether it is kept warm or finishes its last requests: there is
// no draining for what is no longer approved. What drains to make room serves still, and has to be allowed like that.
func (ch *channel) interrupt(d trust.Channel) {
	if w := ch.warm.Load(); w != nil && ch.withdrawn(d, w) && ch.warm.CompareAndSwap(w, nil) {
		ch.retire(w, 0)
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for r, end := range ch.leaving {
		if ch.withdrawn(d, r) || r == ch.gone && !d.Allows(r.release) {
			end()
		}
	}
}

// withdrawn reports whether a release may not be served on this channel again.
func (ch *channel) withdrawn(d trust.Channel, r *running) bool {
	return d.Withdrew(ch.name, r.description) || ch.c.cfg.State.Floor().Withdrew(ch.name, r.description)
}

// retire ends a release in its own time: its requests may finish for as long as drain. Nil is none.
func (ch *channel) retire(old *running, drain time.Duration) {
	if old != nil {
		ch.retired.Go(func() { ch.leave(context.Background(), old, drain) })
	}
}

// leave is retire by whoever waits for it anyway. When ctx ends its requests are interrupted.
func (ch *channel) leave(ctx context.Context, old *running, drain time.Duration) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	ch.mu.Lock()
	ch.leaving[old] = end
	ch.mu.Unlock()
	old.close()
	if drain > 0 {
		_ = ch.c.phase(ctx, ch.name, old.release, phaseDrain, func(ctx context.Context) error { return old.drain(ctx, drain) })
	}
	_ = ch.c.phase(ctx, ch.name, old.release, phaseStop, func(context.Context) error { return old.end() })
	ch.mu.Lock()
	delete(ch.leaving, old)
	ch.mu.Unlock()
}

// cool lets every channel's warm release go, and returns once their memory is free. It reports whether there was any, by its
// own doing or another's.
func (c *Catalog) cool(ctx context.Context) (freed bool) {
	select {
	case c.cooling <- struct{}{}:
	default:
		freed = true // after another that does the same
		select {
		case c.cooling <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	defer func() { <-c.cooling }()
	var all sync.WaitGroup
	for _, ch := range *c.channels.Load() {
		if w := ch.warm.Swap(nil); w != nil {
			freed = true
			c.cfg.Log.Info("memory is needed: a release is kept warm no more", "channel", ch.name, "release", w.release)
			all.Go(func() { ch.leave(ctx, w, drainLimit) })
		}
	}
	all.Wait()
	return freed
}
