package catalog

import (
	"context"
	"errors"
	"fmt"
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

// swapInGap stops what serves before it brings up what is wanted: tooLarge says that there is no room for both. What is
// wanted was read and found good before, and if it does not come to serve all the same, what served before comes back.
func (ch *channel) swapInGap(ctx context.Context, tooLarge error) error {
	old, t := ch.current.Load(), ch.wanted
	if old == nil || ch.gapFor == t.decision.Serve {
		return tooLarge
	}
	err := ch.meanwhile(ctx, func(ctx context.Context) error {
		size, err := ch.c.examine(ctx, t)
		if err != nil {
			return err
		}
		if !ch.c.fitsWithout(old, size) {
			return tooLarge
		}
		_, err = ch.c.cfg.Trail.Append(ctx, audit.Record{
			Kind: audit.KindStop, Channel: ch.name, Release: old.release,
			Why: "there is no memory for two releases at once: requests wait until " + string(t.decision.Serve) + " serves",
		})
		return err
	})
	if err == nil || errors.Is(err, seal.ErrTooLarge) {
		ch.gapFor = t.decision.Serve // a second gap for the same would go no better
	}
	if err != nil {
		return err
	}
	if ch.current.Load() != old {
		return errSuperseded // it was stopped meanwhile
	}
	g := &gap{over: make(chan struct{})}
	ch.gap.Store(g)
	defer func() {
		ch.gap.Store(nil)
		close(g.over)
	}()
	ch.current.Store(nil)
	ch.set(StateLoading, "")
	err = ch.meanwhile(ctx, func(context.Context) error { old.retire(drainLimit); return nil })
	if err == nil {
		err = ch.bringUp(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return errors.Join(err, ch.bringBack(ctx, old))
	}
	return err
}

// fitsWithout reports whether so many bytes fit into the memory for weights once a release is gone.
func (c *Catalog) fitsWithout(old *running, need int64) bool {
	used := c.cfg.Pool.Usage()
	return need <= used.Limit-used.InUse+old.memory.size()
}

// examine makes sure that there is a good copy of all that a release loads, without room for it, and returns how many bytes
// that is.
func (c *Catalog) examine(ctx context.Context, t target) (size int64, err error) {
	all := []*oms.Manifest{t.decision.Release.Manifest()}
	for _, a := range t.decision.Release.Adapters() {
		all = append(all, a.Manifest)
	}
	for _, m := range all {
		n, err := examineOne(ctx, t.weights, m)
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

func examineOne(ctx context.Context, dirs []string, m *oms.Manifest) (size int64, err error) {
	paths, err := store.FindWeights(dirs, m.Root())
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, path := range paths {
		report, err := verifier.Verify(ctx, path, m, verifier.Options{IgnoreUnsigned: true})
		if err == nil {
			return report.Bytes, nil
		}
		errs = append(errs, err)
	}
	return 0, errors.Join(errs...)
}

// bringBack has the release serve again that a gap has ended in vain, if it still may.
func (ch *channel) bringBack(ctx context.Context, old *running) error {
	t := ch.wanted
	if !t.decision.Allows(old.release) || !old.suits(t.decision) {
		return nil
	}
	t.decision.Serve, t.decision.Release = old.release, old.description
	var r *running
	err := ch.meanwhile(ctx, func(ctx context.Context) (err error) {
		r, err = ch.c.start(ctx, newProgress(ch.name, old.release), t)
		return err
	})
	if errors.Is(err, errSuperseded) && r != nil {
		r.discard()
	}
	if err != nil {
		return err
	}
	r.epoch.Store(old.epoch.Load())
	r.publication.Store(old.publication.Load())
	r.fallback.Store(old.fallback.Load())
	ch.replace(r, 0)
	ch.c.cfg.Trail.Note(audit.Record{
		Kind: audit.KindSwitch, Channel: ch.name, Release: r.release, Statement: *r.publication.Load(), Level: string(r.memory.level()),
		Why: "brought back, as what is newer did not come to serve",
	})
	return nil
}
