// Package scrub reads stored weights again, slowly, so that rot and tampering are known before the weights are needed.
//
// The one rule: it reads and tells. It changes nothing, not what serves, not what is stored, not what others keep in
// memory; what it finds good is verified again when it is loaded, and what it finds bad would be refused then.
//
// A [Scrubber] is told what may be needed, and reads every copy of that, since any of them may be taken for a load. It
// reads what the device holds, in a process of its own with the lowest priority there is, and no faster than a rate.
package scrub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// Config is what a [Scrubber] needs. All fields are required.
type Config struct {
	Needs func() []catalog.Need // what may be needed now
	Terms func() Terms          // by what is in force now
	Trail Trail
	Log   *slog.Logger
	Meter metric.Meter
}

// Terms say where, how often and how fast.
type Terms struct {
	Dirs  []string      // in which weights lie
	Every time.Duration // between two readings of a copy; 0: never
	Rate  int64         // bytes a second
}

// A Trail is where it is recorded that weights are bad, or no longer. Note never blocks and never fails.
type Trail interface{ Note(r audit.Record) }

// A Scrubber has stored weights read. Make one with [New]; its methods may be called concurrently, but Run only once.
type Scrubber struct {
	cfg   Config
	shown atomic.Pointer[report]

	// Owned by Run.
	dirs    []string                 // that were searched
	wanted  map[statement.ID]*wanted // by the statement that lists the files
	told    map[subject]string       // what is bad, as recorded
	trouble string                   // why nothing can be read, as logged
	needed  []string                 // the channels that need anything
	reader  func(context.Context, job) (answer, error)
}

// wanted is weights, or an adapter, that releases name.
type wanted struct {
	signed   *statement.Signed
	manifest *oms.Manifest
	uses     []use

	searched time.Time // for copies; zero: not yet
	missing  string    // why there is none, "" if there is one
	copies   map[string]*stored
}

// A use is why something is wanted.
type use struct {
	channel string
	why     catalog.Why
	release statement.ID
	adapter bool // it is an adapter of the release
}

// stored is one copy of what is wanted.
type stored struct {
	path     string
	looks    looks     // as it lay there before it was read last
	readAt   time.Time // zero: not yet
	notUntil time.Time // it is to be read again
	restless int       // how often in a row it was changed while it was read
	bad      string    // what is wrong with it, "" if nothing is
}

// New returns a Scrubber that reads nothing until Run.
func New(cfg Config) (*Scrubber, error) {
	var missing []error
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			missing = append(missing, fmt.Errorf("scrub: %s is required", v.Type().Field(i).Name))
		}
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	s := &Scrubber{cfg: cfg, wanted: map[statement.ID]*wanted{}, told: map[subject]string{}, reader: read}
	s.shown.Store(&report{})
	if err := s.observe(cfg.Meter); err != nil {
		return nil, fmt.Errorf("scrub: %w", err)
	}
	return s, nil
}

// Run has copies read, one at a time, when their turn comes, until ctx ends.
func (s *Scrubber) Run(ctx context.Context) {
	for wait := firstAfter; ; wait = lookEvery {
		if every := s.cfg.Terms().Every; every > 0 {
			wait = min(wait, every)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		for more := true; more && ctx.Err() == nil; {
			more = s.step(ctx)
		}
	}
}

// step looks at what is needed and has the copy read whose turn it is. It reports whether there was one.
func (s *Scrubber) step(ctx context.Context) bool {
	terms := s.cfg.Terms()
	s.want(terms)
	for _, w := range s.wanted {
		w.find(terms, time.Now())
	}
	w, c := s.next(terms, time.Now())
	if c != nil {
		s.check(ctx, terms, w, c)
	}
	s.tell(terms)
	return c != nil
}

// want takes over what is needed now, and keeps what is known of it.
func (s *Scrubber) want(terms Terms) {
	old := s.wanted
	s.wanted, s.needed = map[statement.ID]*wanted{}, nil
	if terms.Every == 0 {
		return
	}
	if !slices.Equal(s.dirs, terms.Dirs) {
		for _, w := range old {
			w.searched = time.Time{}
		}
		s.dirs = slices.Clone(terms.Dirs)
	}
	add := func(signed *statement.Signed, m *oms.Manifest, u use) {
		w := s.wanted[signed.ID()]
		if w == nil {
			w = &wanted{signed: signed, manifest: m, copies: map[string]*stored{}}
			if before := old[signed.ID()]; before != nil {
				w.searched, w.missing, w.copies = before.searched, before.missing, before.copies
			}
			s.wanted[signed.ID()] = w
		}
		w.uses = append(w.uses, u)
	}
	for _, n := range s.cfg.Needs() {
		add(n.Release.WeightsStatement(), n.Release.Manifest(), use{n.Channel, n.Why, n.Release.ID, false})
		for _, a := range n.Release.Adapters() {
			add(a.Statement, a.Manifest, use{n.Channel, n.Why, n.Release.ID, true})
		}
		s.needed = append(s.needed, n.Channel)
	}
	slices.Sort(s.needed)
	s.needed = slices.Compact(s.needed)
}

// find looks for copies where there may be others by now.
func (w *wanted) find(terms Terms, now time.Time) {
	again := len(w.copies) == 0 || now.Sub(w.searched) >= terms.Every
	for path := range w.copies {
		if _, err := os.Lstat(path); err != nil {
			again = true
		}
	}
	if !again {
		return
	}
	paths, err := store.FindWeights(terms.Dirs, w.manifest.Root())
	w.searched, w.missing = now, ""
	if err != nil {
		w.missing = err.Error()
	}
	copies := map[string]*stored{}
	for _, path := range paths {
		if copies[path] = w.copies[path]; copies[path] == nil {
			copies[path] = &stored{path: path}
		}
	}
	w.copies = copies
}

// next returns the copy whose turn it is: of those that are due, or that were changed since they were read, the one that was
// not read for longest. It returns nil if there is none.
func (s *Scrubber) next(terms Terms, now time.Time) (of *wanted, first *stored) {
	for _, id := range slices.Sorted(maps.Keys(s.wanted)) {
		w := s.wanted[id]
		for _, path := range slices.Sorted(maps.Keys(w.copies)) {
			c := w.copies[path]
			if now.Before(c.notUntil) || !c.readAt.IsZero() && now.Sub(c.readAt) < terms.Every && c.looks == look(path, w.manifest) {
				continue
			}
			if first == nil || c.readAt.Before(first.readAt) {
				of, first = w, c
			}
		}
	}
	return of, first
}

// check has a copy read and notes how it is.
func (s *Scrubber) check(ctx context.Context, terms Terms, w *wanted, c *stored) {
	before := look(c.path, w.manifest)
	a, err := s.reader(ctx, job{Path: c.path, Statement: w.signed.Bundle(), Rate: terms.Rate})
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	c.notUntil = now.Add(min(lookEvery, terms.Every))
	s.note(err)
	if err != nil {
		return
	}
	bad := a.String()
	if look(c.path, w.manifest) != before && c.restless < maxRestless {
		c.restless++ // somebody is writing it, or has taken it away: what was read is not what is to be
		return
	}
	c.looks, c.readAt, c.restless, c.bad = before, now, 0, bad
	s.cfg.Log.Debug("stored weights were read", "path", c.path, "bytes", a.Bytes, "bad", bad)
}

// note keeps why nothing can be read, and logs it once for as long as it stays so.
func (s *Scrubber) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != s.trouble {
		s.cfg.Log.Error("stored weights can't be checked", "err", err)
	}
	s.trouble = text
}
