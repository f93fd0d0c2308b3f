package catalog

import (
	"slices"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// What served before stays warm: its runtime runs on beside the one that serves, so that a rollback is the switch of a
// pointer. It goes when its memory is needed, when it was withdrawn, when its runtime fails, and when a third release
// serves. It serves nothing: only step brings it back, by a decision and its record like any other release.

// keep makes what served before the channel's warm release, or retires it where it can't be kept.
func (ch *channel) keep(old *running) {
	if old.backend.Status().State != backends.Ready || old.backend.Status().GaveBack || ch.withdrawn(old) || ch.c.cfg.Pool.Short() {
		ch.retire(old, drainLimit)
		return
	}
	old.epoch.Store(0) // whatever it serves next has yet to be recorded
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

// coolOnceDue lets the warm release go once there is a reason to.
func (ch *channel) coolOnceDue() {
	w := ch.warm.Load()
	if w != nil && (w.backend.Status().State == backends.Failed || ch.withdrawn(w) || ch.c.cfg.Pool.Short()) && ch.warm.CompareAndSwap(w, nil) {
		ch.retire(w, drainLimit)
	}
}

// cool lets every channel's warm release go, and returns once their memory is free. It reports whether there was any.
func (c *Catalog) cool() (any bool) {
	for _, ch := range *c.channels.Load() {
		w := ch.warm.Swap(nil)
		if w == nil {
			continue
		}
		any = true
		c.cfg.Log.Info("memory is needed: a release is kept warm no more", "channel", ch.name, "release", w.release)
		w.retire(drainLimit)
	}
	return any
}

// withdrawn reports whether the floor knows that a release may not be served on this channel again.
func (ch *channel) withdrawn(r *running) bool {
	return slices.ContainsFunc(ch.c.cfg.State.Floor().Withdrawn, func(w trust.Withdrawn) bool {
		return w.Channel == ch.name && (w.Release == r.release || w.Weights != "" && w.Weights == r.memory.weights.Root())
	})
}

// retire ends a release in its own time: its requests may finish for as long as drain. Nil is none.
func (ch *channel) retire(old *running, drain time.Duration) {
	if old == nil {
		return
	}
	ch.mu.Lock()
	ch.draining++
	ch.mu.Unlock()
	ch.retired.Go(func() {
		old.retire(drain)
		ch.mu.Lock()
		ch.draining--
		ch.mu.Unlock()
	})
}
