package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// loaded is what a release holds of the memory: its weights and, in its order, its adapters.
type loaded struct {
	weights  *seal.Weights
	adapters []*seal.Weights
}

func (l loaded) all() []*seal.Weights { return append([]*seal.Weights{l.weights}, l.adapters...) }

// each does something with all of it, whatever becomes of the others.
func (l loaded) each(do func(*seal.Weights) error) error {
	var errs []error
	for _, w := range l.all() {
		errs = append(errs, do(w))
	}
	return errors.Join(errs...)
}

func (l loaded) close() error   { return l.each((*seal.Weights).Close) }
func (l loaded) discard() error { return l.each((*seal.Weights).Discard) }

// level is how the weakest is guarded: an answer is worth no more than that.
func (l loaded) level() seal.Level {
	var levels []string
	for _, w := range l.all() {
		levels = append(levels, string(w.Level()))
	}
	return seal.Level(trust.WeakestLevel(levels...))
}

func (l loaded) size() (n int64) {
	for _, w := range l.all() {
		n += w.Size()
	}
	return n
}

// share returns references to the same memory.
func (l loaded) share() (shared loaded, err error) {
	if shared.weights, err = l.weights.Share(); err != nil {
		return loaded{}, err
	}
	for _, w := range l.adapters {
		adapter, err := w.Share()
		if err != nil {
			return loaded{}, errors.Join(err, shared.close())
		}
		shared.adapters = append(shared.adapters, adapter)
	}
	return shared, nil
}

// enlarge moves sealed memory into huge pages and returns how many bytes are there.
func (l loaded) enlarge(ctx context.Context) (huge int64) {
	for _, w := range l.all() {
		huge += w.Enlarge(ctx)
	}
	return huge
}

// spec is what a runtime is told about a release.
func (l loaded) spec(r *trust.Release) backends.Spec {
	spec := backends.Spec{Args: r.Runtime.Args, ChatTemplate: r.Behaviour.ChatTemplate, Build: r.Runtime.Build, Tools: len(r.Behaviour.Tools) > 0}
	for i, a := range r.Adapters() {
		spec.Adapters = append(spec.Adapters, backends.Adapter{Weights: l.adapters[i], Scale: a.Scale})
	}
	return spec
}

// read returns the memory of a release. Adapters come first: they are small, and what is wrong with one is known before
// gigabytes were read. On an error nothing is held.
func (c *Catalog) read(ctx context.Context, p *progress, t target) (l loaded, err error) {
	for _, a := range t.decision.Release.Adapters() {
		w, err := c.admit(ctx, p, t, a.Manifest)
		if err != nil {
			return loaded{}, errors.Join(fmt.Errorf("adapter %s: %w", a.Root, err), l.close())
		}
		l.adapters = append(l.adapters, w)
		p.next()
	}
	if l.weights, err = c.admit(ctx, p, t, t.decision.Release.Manifest()); err != nil {
		return loaded{}, errors.Join(err, l.close())
	}
	return l, nil
}

// admit is read of one model. Where memory is short, what is kept warm goes.
func (c *Catalog) admit(ctx context.Context, p *progress, t target, manifest *oms.Manifest) (*seal.Weights, error) {
	w, err := c.admitOnce(ctx, p, t, manifest)
	if errors.Is(err, seal.ErrTooLarge) && c.cool(ctx) {
		return c.admitOnce(ctx, p, t, manifest)
	}
	return w, err
}

// admitOnce returns weights: those in memory already, or else from the first good copy on disk.
func (c *Catalog) admitOnce(ctx context.Context, p *progress, t target, manifest *oms.Manifest) (*seal.Weights, error) {
	if w := c.cfg.Pool.Get(manifest); w != nil {
		return w, nil
	}
	paths, err := store.FindWeights(t.weights, manifest.Root())
	if err != nil {
		return nil, err
	}
	ctx, span := c.cfg.Tracer.Start(ctx, "verify and seal")
	defer span.End()
	var errs []error
	for _, path := range paths {
		w, err := verifier.Admit(ctx, c.cfg.Pool, path, manifest, seal.Options{
			Measured: t.decision.AcceptsLevel(string(seal.Measured)),
			Progress: p.read,
			Loaded:   func(f seal.FileTimes) { c.traceFile(ctx, f) },
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		for _, err := range errs {
			c.cfg.Log.Warn("a copy of the weights is bad; another one serves", "channel", p.channel, "release", t.decision.Serve, "err", err)
		}
		return w, nil
	}
	return nil, errors.Join(errs...)
}
