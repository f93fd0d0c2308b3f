package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Times of a channel's life.
const (
	// drainLimit is how long requests of a replaced release may go on; a stream longer than that is interrupted.
	drainLimit = 60 * time.Second
	// stopLimit is how long a runtime may take to end before it is killed.
	stopLimit = 10 * time.Second
	// firstRetry and lastRetry bound the waits after a failed load: the reason may pass (weights still being copied,
	// memory short), but verifying gigabytes again and again would hurt what serves.
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
	// steady is how long a runtime must have served for its failure not to count with those before.
	steady = time.Minute
	// maxShift keeps the doubling of firstRetry within lastRetry.
	maxShift = 16
	// checkEvery is how often a runtime is looked at for having failed for good.
	checkEvery = time.Second
)

// A target is what a channel should serve.
type target struct {
	decision trust.Channel
	policy   *trust.Policy
	weights  []string
	ends     []trust.End // of what the decision rests on
	grounds  *trust.Grounds
	refused  []string // rules by which nothing, or nothing newer, may be served
}

// A channel moves one channel from release to release. Its goroutine, run, alone changes what serves.
type channel struct {
	name string
	c    *Catalog
	stop context.CancelFunc // ends run
	mail chan target        // holds the newest target only

	current  atomic.Pointer[running]  // what serves; nil: nothing
	warm     atomic.Pointer[running]  // what served before and still runs; nil: nothing
	gap      atomic.Pointer[gap]      // requests wait for its end; nil: there is none
	progress atomic.Pointer[progress] // of what is being brought up; nil: nothing
	decided  atomic.Pointer[target]   // the newest word; nil: none yet

	mu      sync.Mutex
	state   State // of what does not serve yet; a current release is ready
	since   time.Time
	err     string
	leaving map[*running]context.CancelFunc // what finishes its last requests, and what interrupts them

	// Owned by run.
	wanted target
	retry  *time.Timer
	wait   time.Duration // before the next retry; 0: nothing failed
	check  *time.Ticker

	warmSince time.Time
	gapFor    statement.ID // what a gap was made for last
	gone      *running     // what stopped to make room, and has not been replaced; it is only a description by now

	failed   *running // the last whose runtime failed for good
	failures int      // of runtimes, each soon after the one before
	reviveAt time.Time
	retired  sync.WaitGroup
}

func newChannel(c *Catalog, name string, stop context.CancelFunc) *channel {
	ch := &channel{name: name, c: c, stop: stop, mail: make(chan target, 1), retry: time.NewTimer(time.Hour), check: time.NewTicker(checkEvery), leaving: map[*running]context.CancelFunc{}}
	ch.retry.Stop()
	ch.set(StateNone, "starting")
	return ch
}

// want tells the channel what to serve from now on. It never blocks; only the newest word counts.
func (ch *channel) want(t target) {
	select {
	case <-ch.mail: // an older word that was not heard yet
	default:
	}
	ch.mail <- t // only the catalog's goroutine sends, so there is room
}

// hear takes the newest word. What it does not allow stops now, whatever is being prepared to replace it: there is no
// draining for what is no longer approved.
func (ch *channel) hear(t target) {
	if t.decision.Serve != ch.wanted.decision.Serve {
		ch.wait, ch.gapFor = 0, "" // another release: what failed before says nothing about it
	}
	ch.wanted = t
	ch.interrupt(t.decision)
	r := ch.current.Load()
	if r == nil || t.decision.Allows(r.release) && r.suits(t.decision) {
		return
	}
	ch.replace(nil, 0)
	ch.noteStop(r, whyNot(t.decision))
	if ch.wait == 0 {
		ch.set(StateLoading, "")
	} else {
		ch.set(StateFailed, ch.status().Error)
	}
	ch.c.cfg.Log.Warn("release stopped: it is no longer approved", "channel", ch.name, "release", r.release, "guarded", r.level)
}

// run carries out what is wanted until ctx ends, then stops everything it started.
func (ch *channel) run(ctx context.Context) {
	defer ch.retired.Wait()
	defer ch.replace(nil, 0)
	defer func() { ch.retire(ch.warm.Swap(nil), 0) }()
	defer ch.check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-ch.mail:
			ch.hear(t)
			if ch.wait != 0 {
				continue // the retry timer runs
			}
		case <-ch.retry.C:
		case <-ch.check.C:
			ch.coolOnceDue()
			r := ch.current.Load()
			if r != nil && !r.suits(ch.wanted.decision) {
				ch.hear(ch.wanted) // it was started again, with less of a sandbox
				break
			}
			if r == nil || r.backend.Status().State != backends.Failed {
				continue
			}
			if ch.wait != 0 {
				ch.revive(ctx, r)
			}
			if ch.wait != 0 { // still: it has heard of nothing newer meanwhile
				continue
			}
		}
		ch.reconcile(ctx)
	}
}

// reconcile makes what serves the same as what is wanted, or says why it is not.
func (ch *channel) reconcile(ctx context.Context) {
	err := ch.step(ctx)
	for errors.Is(err, errSuperseded) && ctx.Err() == nil {
		err = ch.step(ctx)
	}
	ch.endGap()
	switch {
	case err == nil:
		ch.wait = 0
		ch.retry.Stop()
	case ctx.Err() != nil:
	default:
		ch.wait = min(max(2*ch.wait, firstRetry), lastRetry)
		ch.retry.Reset(ch.wait)
		ch.c.cfg.Log.Error("release is not served", "channel", ch.name, "release", ch.wanted.decision.Serve, "err", err,
			"serving", ch.serving(), "retry", ch.wait)
		if ch.current.Load() == nil {
			ch.set(StateFailed, firstLine(err))
		} else {
			ch.set(StateReady, firstLine(err))
		}
	}
}

// step does what the newest word asks for. errSuperseded means that there is a newer one by now.
func (ch *channel) step(ctx context.Context) error {
	defer ch.progress.Store(nil)
	d, r := ch.wanted.decision, ch.current.Load()
	switch {
	case d.Serve == "" && r != nil: // else hear had stopped it
		ch.set(StateReady, "frozen, no longer meets its requirements: "+whyNot(d))
		return nil
	case d.Serve == "":
		ch.set(StateNone, whyNot(d))
		return nil
	case r == nil || r.release != d.Serve:
		return ch.traced(ctx, d.Serve, ch.load)
	case r.backend.Status().State == backends.Failed:
		if ch.mayRevive(r) {
			return ch.traced(ctx, r.release, func(ctx context.Context) error { return ch.restart(ctx, r) })
		}
		return nil // checkEvery asks again
	default:
		err := ch.commit(ctx, r)
		if err == nil && ch.current.Load() != r {
			return errSuperseded // it was stopped meanwhile, and would be allowed again by now
		}
		return err
	}
}

// mayRevive reports whether a runtime that failed for good may be brought up again by now. One that fails soon after it
// was brought up waits, each time for longer: bringing it up may take reading gigabytes, which hurts what serves.
func (ch *channel) mayRevive(failed *running) bool {
	now := ch.c.cfg.Now()
	if failed != ch.failed {
		ch.failed = failed
		if now.Sub(*failed.since.Load()) >= steady {
			ch.failures = 0
		}
		ch.noteFailure(now)
		ch.c.cfg.Log.Warn("runtime failed for good", "channel", ch.name, "release", failed.release, "failures", ch.failures,
			"again", ch.reviveAt.Sub(now))
	}
	return !now.Before(ch.reviveAt)
}

// noteFailure counts a failure and says when to go on after it: after the first one at once.
func (ch *channel) noteFailure(now time.Time) {
	ch.reviveAt = now
	if ch.failures++; ch.failures > 1 {
		ch.reviveAt = now.Add(min(firstRetry<<min(ch.failures-2, maxShift), lastRetry))
	}
}

// revive brings what serves up again when its runtime has failed for good, while what is newer waits for its next try.
func (ch *channel) revive(ctx context.Context, failed *running) {
	if d := ch.wanted.decision; failed.release == d.Serve || failed.release == d.Frozen || !ch.mayRevive(failed) {
		return
	}
	defer ch.progress.Store(nil)
	err := ch.traced(ctx, failed.release, func(ctx context.Context) error {
		err := ch.resume(ctx, failed, ch.relaunch(failed))
		if lost(err) {
			err = ch.resume(ctx, failed, ch.c.start)
		}
		return err
	})
	if err != nil && !errors.Is(err, errSuperseded) && ctx.Err() == nil {
		ch.noteFailure(ch.c.cfg.Now())
		ch.c.cfg.Log.Error("what serves was not brought up again", "channel", ch.name, "release", failed.release, "err", err)
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// serving names the release that serves, for logs.
func (ch *channel) serving() string {
	if r := ch.current.Load(); r != nil {
		return string(r.release)
	}
	return ""
}

// errSuperseded means that something else was wanted before the load was done.
var errSuperseded = errors.New("another release is wanted by now")

// load brings the wanted release up beside the current one and then replaces that. The order matters: a crash or an
// error before the record leaves the old release decided and serving; after it, a restart comes up with the new one.
func (ch *channel) load(ctx context.Context) error {
	if w := ch.takeWarm(ch.wanted.decision); w != nil {
		return ch.comeBack(ctx, w)
	}
	if ch.current.Load() == nil {
		ch.set(StateLoading, "")
	}
	err := ch.bringUp(ctx)
	switch w := ch.warm.Load(); {
	case errors.Is(err, errStart) && w != nil && ch.warm.CompareAndSwap(w, nil):
		// A runtime needs memory of its own, which what is kept warm may take: it is free once that has left.
		if err = ch.meanwhile(ctx, func(ctx context.Context) error { ch.leave(ctx, w, drainLimit); return nil }); err == nil {
			err = ch.bringUp(ctx)
		}
	case errors.Is(err, seal.ErrTooLarge) && ch.current.Load() != nil:
		err = ch.swapInGap(ctx, err)
	}
	if err != nil && !errors.Is(err, errSuperseded) && ch.gone != nil && ctx.Err() == nil {
		return errors.Join(err, ch.bringBack(ctx))
	}
	return err
}

// bringUp is load of what does not run yet.
func (ch *channel) bringUp(ctx context.Context) error {
	start := ch.c.cfg.Now()
	r, err := ch.prepare(ctx, ch.wanted, ch.c.start)
	ch.c.metrics.loaded(ctx, ch.name, ch.c.cfg.Now().Sub(start), err)
	ch.noteLoad(r, err)
	if err != nil {
		return err
	}
	if err := ch.commit(ctx, r); err != nil {
		r.discard()
		return err
	}
	old := ch.serving()
	ch.replace(r, drainLimit)
	ch.c.cfg.Log.Info("release serves", "channel", ch.name, "release", r.release, "epoch", r.epoch.Load(),
		"weights", r.memory.weights.Root(), "guarded", r.level, "adapters", len(r.memory.adapters), "bytes", r.memory.size(), "replaced", old,
		"loadSeconds", r.loadTime.Seconds(), "startSeconds", r.startTime.Seconds())
	return ch.newest(r)
}

// newest returns errSuperseded if something else than r is wanted by now: r serves until that does.
func (ch *channel) newest(r *running) error {
	if ch.wanted.decision.Serve != r.release {
		return errSuperseded
	}
	return nil
}

// comeBack has what was kept warm serve again.
func (ch *channel) comeBack(ctx context.Context, w *running) error {
	if err := ch.commit(ctx, w); err != nil {
		w.epoch.Store(0)
		if !ch.warm.CompareAndSwap(nil, w) {
			ch.retire(w, 0)
		}
		return err
	}
	old, now := ch.serving(), ch.c.cfg.Now()
	w.since.Store(&now)
	ch.replace(w, drainLimit)
	ch.c.cfg.Log.Info("release serves", "channel", ch.name, "release", w.release, "epoch", w.epoch.Load(),
		"weights", w.memory.weights.Root(), "guarded", w.level, "replaced", old, "warm", true)
	return ch.newest(w)
}

// A starter makes a target run.
type starter func(context.Context, *progress, target) (*running, error)

// prepare makes a target run, by start; it gives up when another release is wanted meanwhile.
func (ch *channel) prepare(ctx context.Context, t target, start starter) (*running, error) {
	p := ch.begin(t.decision.Serve)
	var r *running
	err := ch.meanwhile(ctx, func(ctx context.Context) (err error) {
		r, err = start(ctx, p, t)
		return err
	})
	if errors.Is(err, errSuperseded) && r != nil { // done before it heard of the cancellation
		r.discard()
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// lost reports whether what was measured or given back is gone: only another reading tells what is there now.
func lost(err error) bool { return errors.Is(err, seal.ErrChanged) || errors.Is(err, seal.ErrClosed) }

// relaunch is how a runtime is started again on what one that failed holds.
func (ch *channel) relaunch(failed *running) starter {
	return func(ctx context.Context, p *progress, t target) (*running, error) {
		backend, err := ch.c.newBackend(t.decision)
		if err != nil {
			return nil, err
		}
		memory, err := failed.memory.share()
		if err != nil {
			return nil, err
		}
		r, err := ch.c.launch(ctx, p, t, backend, memory)
		if err != nil {
			return nil, errors.Join(err, memory.close())
		}
		r.loadTime = failed.loadTime
		return r, nil
	}
}

// restart replaces a runtime that failed for good by a new one on the same sealed weights: nothing is read again.
func (ch *channel) restart(ctx context.Context, failed *running) error {
	fresh, err := ch.prepare(ctx, ch.wanted, ch.relaunch(failed))
	if lost(err) {
		return ch.load(ctx)
	}
	if err != nil {
		return fmt.Errorf("start the runtime again: %w", err)
	}
	fresh.epoch.Store(failed.epoch.Load())
	fresh.publication.Store(failed.publication.Load())
	if err := ch.commit(ctx, fresh); err != nil {
		fresh.discard()
		return err
	}
	ch.replace(fresh, 0)
	return nil
}

// replace publishes r (or nothing). What served before stays warm after an orderly switch, one that leaves its requests the
// time to finish; otherwise it is retired.
func (ch *channel) replace(r *running, drain time.Duration) {
	old := ch.current.Swap(r)
	if r != nil {
		r.enlarge()
		ch.gone = nil
	}
	switch {
	case old == nil:
	case r != nil && drain > 0:
		ch.keep(old)
	default:
		ch.retire(old, drain)
	}
}
