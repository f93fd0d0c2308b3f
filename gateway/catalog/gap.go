package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/store"
)

const (
	// maxWaiting is how many requests of a channel may wait in a gap; more are refused, and may come again.
	maxWaiting = 256
	// maxWait is how long one may.
	maxWait = 2 * time.Minute
)

// A gap is the time in which a channel serves nothing because its next release does not fit into memory beside the one
// that serves. Requests that come meanwhile wait.
type gap struct {
	over    chan struct{}
	waiting atomic.Int64
}

// wait returns when the gap is over, or with the reason why this request can't wait for that.
func (g *gap) wait(ctx context.Context) error {
	if g.waiting.Add(1) > maxWaiting {
		g.waiting.Add(-1)
		return fmt.Errorf("%w: the release is being replaced, and %d requests wait for that already", ErrNotServing, maxWaiting)
	}
	defer g.waiting.Add(-1)
	late := time.NewTimer(maxWait)
	defer late.Stop()
	select {
	case <-g.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: the release is being replaced: %w", ErrNotServing, context.Cause(ctx))
	case <-late.C:
		return fmt.Errorf("%w: the release is being replaced, which has taken longer than %s", ErrNotServing, maxWait)
	}
}

// await returns nil if something may serve by now, after a gap that there was, and else why not.
func (ch *channel) await(ctx context.Context) error {
	if g := ch.gap.Load(); g != nil {
		return g.wait(ctx)
	}
	if ch.current.Load() != nil {
		return nil // a gap has ended since it was looked for
	}
	return fmt.Errorf("%w: %s", ErrNotServing, ch.status().Error)
}

// endGap lets requests go on that waited.
func (ch *channel) endGap() {
	if g := ch.gap.Swap(nil); g != nil {
		close(g.over)
	}
}

// swapInGap stops what serves before it brings up what is wanted: tooLarge says that there is no room for both. What is
// wanted was read and found good before. If it does not come to serve all the same, what served before is to come back.
func (ch *channel) swapInGap(ctx context.Context, tooLarge error) error {
	old, t := ch.current.Load(), ch.wanted
	if ch.gapFor == t.decision.Serve || !ch.c.fitsWithout(old, t) {
		return tooLarge
	}
	err := ch.meanwhile(ctx, func(ctx context.Context) error {
		if err := ch.c.examine(ctx, t); err != nil {
			return err
		}
		if _, err := store.FindWeights(t.weights, old.memory.weights.Root()); err != nil {
			return fmt.Errorf("%w, and what serves could not be brought back: %w", tooLarge, err)
		}
		_, err := ch.c.cfg.Trail.Append(ctx, audit.Record{
			Kind: audit.KindStop, Channel: ch.name, Release: old.release,
			Why: "there is no memory for two releases at once: requests wait until " + string(t.decision.Serve) + " serves",
		})
		return err
	})
	if err == nil && ch.current.Load() != old {
		err = errSuperseded // it was stopped meanwhile
	}
	if err != nil {
		return err
	}
	ch.gapFor = t.decision.Serve // a second gap for the same would go no better
	ch.gap.Store(&gap{over: make(chan struct{})})
	ch.gone = old
	ch.current.Store(nil)
	ch.set(StateLoading, "")
	if err := ch.meanwhile(ctx, func(ctx context.Context) error { ch.leave(ctx, old, drainLimit); return nil }); err != nil {
		return err
	}
	return ch.bringUp(ctx)
}

// fitsWithout reports whether a release fits into the memory for weights once another is gone, as far as the sizes of the
// files tell, which are not read for that.
func (c *Catalog) fitsWithout(old *running, t target) bool {
	var need int64
	for _, m := range manifests(t) {
		paths, err := store.FindWeights(t.weights, m.Root())
		if err != nil {
			return false
		}
		for _, f := range m.Files() {
			info, err := os.Stat(filepath.Join(paths[0], filepath.FromSlash(f.Name)))
			if err != nil {
				return false
			}
			need += info.Size()
		}
	}
	used := c.cfg.Pool.Usage()
	return need <= used.Limit-used.InUse+c.own(old)
}

// own is how much memory for weights a release holds that no other does.
func (c *Catalog) own(r *running) (n int64) {
	others := map[string]bool{}
	for _, ch := range *c.channels.Load() {
		for _, other := range ch.holders() {
			if other == r {
				continue
			}
			for _, w := range other.memory.all() {
				others[w.Root()] = true
			}
		}
	}
	for _, w := range r.memory.all() {
		if w.Level() == seal.Sealed && !others[w.Root()] {
			n += w.Size()
		}
	}
	return n
}

// holders are what of the channel holds memory for weights, but for what is being brought up.
func (ch *channel) holders() []*running {
	serves, warm, leaving := ch.roles()
	return slices.Concat(serves, warm, leaving)
}

// roles are what serves, what is kept warm, and what finishes its last requests.
func (ch *channel) roles() (serves, warm, leaving []*running) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	leaving = slices.Collect(maps.Keys(ch.leaving))
	if r := ch.current.Load(); r != nil {
		serves = append(serves, r)
	}
	if r := ch.warm.Load(); r != nil {
		warm = append(warm, r)
	}
	return serves, warm, leaving
}

// manifests are those of all that a release loads.
func manifests(t target) []*oms.Manifest {
	all := []*oms.Manifest{t.decision.Release.Manifest()}
	for _, a := range t.decision.Release.Adapters() {
		all = append(all, a.Manifest)
	}
	return all
}

// examine makes sure that there is a good copy of all that a release loads, without room for it.
func (c *Catalog) examine(ctx context.Context, t target) error {
	for _, m := range manifests(t) {
		if err := examineOne(ctx, t.weights, m); err != nil {
			return err
		}
	}
	return nil
}

func examineOne(ctx context.Context, dirs []string, m *oms.Manifest) error {
	paths, err := store.FindWeights(dirs, m.Root())
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		_, err := verifier.Verify(ctx, path, m, verifier.Options{IgnoreUnsigned: true})
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// bringBack has the release serve again that has made room in vain, if it still may. Until it does, it is tried again with
// what is wanted.
func (ch *channel) bringBack(ctx context.Context) error {
	old, d := ch.gone, ch.wanted.decision
	if !d.Allows(old.release) || old.release == d.Frozen || !old.suits(d) {
		ch.gone = nil
		return nil
	}
	return ch.resume(ctx, old, ch.c.start)
}

// resume has serve again what did before, by start, though something else is wanted: its publication is not the newest,
// and the floor is not its.
func (ch *channel) resume(ctx context.Context, old *running, start starter) error {
	t := ch.wanted
	t.decision.Serve, t.decision.Release = old.release, old.description
	r, err := ch.prepare(ctx, t, start)
	if err != nil {
		return fmt.Errorf("bring back %s: %w", old.release, err)
	}
	r.epoch.Store(old.epoch.Load())
	r.publication.Store(old.publication.Load())
	r.fallback.Store(old.fallback.Load())
	r.grounds.Store(old.grounds.Load())
	err = ch.meanwhile(ctx, func(ctx context.Context) error {
		_, err := ch.c.cfg.Trail.Append(ctx, audit.Record{
			Kind: audit.KindSwitch, Channel: ch.name, Release: r.release, Statement: *r.publication.Load(), Level: string(r.level),
			Why: "brought back, as what is newer did not come to serve",
		})
		return err
	})
	if d := ch.wanted.decision; err == nil && (!d.Allows(r.release) || !r.suits(d)) {
		err = errSuperseded
	}
	if err != nil {
		r.discard()
		return fmt.Errorf("bring back %s: %w", old.release, err)
	}
	ch.replace(r, 0)
	return nil
}
