package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// A reloader applies a changed configuration to the running gateway: all of it, or nothing.
type reloader struct {
	log      *slog.Logger
	path     string
	running  *atomic.Pointer[configs.Gateway]
	state    *store.State
	trail    catalog.Trail
	rules    *atomic.Pointer[access.Policy]
	recheck  func() // has requests in flight held to the rules that are in force now
	catalog  *catalog.Catalog
	identity *identity.Source
	refused  string      // why the policy file was refused, as logged
	followed store.Looks // of the policy file that was taken over last; zero: there was none, or another was refused since
}

func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) error {
	changed := make(chan struct{}, 1)
	// Its directory, because the file is replaced and not written.
	wait := store.WatchStatements(ctx, []string{filepath.Dir(r.running.Load().Trust.Policy)}, func() {
		select {
		case changed <- struct{}{}:
		default: // a change is pending already
		}
	})
	defer wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			r.followPolicy(ctx)
		case <-hangups:
			if err := r.reload(ctx); err != nil {
				r.log.Error("configuration was not reloaded; the old one stays", "file", r.path, "err", err)
				continue
			}
			r.log.Info("configuration reloaded", "file", r.path)
		}
	}
}

// followPolicy takes over a policy file that has changed, if it may replace the policy in force.
func (r *reloader) followPolicy(ctx context.Context) {
	file, err := store.LookAt(r.running.Load().Trust.Policy)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return // the policy accepted last stays
	case err == nil && file == r.followed:
		return
	}
	r.followed = store.Looks{}
	policy, err := acceptPolicy(ctx, r.log, r.running.Load().Trust, r.state, r.trail)
	if err != nil {
		if text := err.Error(); text != r.refused {
			r.log.Error("the policy file was not taken over; the policy accepted last stays", "err", err)
			r.refused = text
		}
		return
	}
	r.refused = ""
	if now := r.catalog.Policy(); now == nil || now.Digest() != policy.Digest() {
		if err := r.catalog.Update(ctx, catalogInputs(r.running.Load(), policy)); err != nil {
			if ctx.Err() == nil {
				r.log.Error("the new policy is not in force yet", "err", err)
			}
			return
		}
	}
	r.followed = file // zero if it could not be looked at: then it is read again
}

// reload checks everything that can fail before it changes anything.
func (r *reloader) reload(ctx context.Context) error {
	next, err := configs.Load(r.path)
	if err != nil {
		return err
	}
	if err := needsRestart(r.running.Load(), next); err != nil {
		return err
	}
	if err := readable(next.Trust.Statements); err != nil {
		return err
	}
	rules, err := access.Parse(next.Access)
	if err != nil {
		return err
	}
	if err := r.identity.Reload(); err != nil { // the files are followed anyhow
		return fmt.Errorf("identity: %w", err)
	}
	// Last, since it can't be taken back: the floor forgets the old policy.
	policy, err := acceptPolicy(ctx, r.log, next.Trust, r.state, r.trail)
	if err != nil {
		return err
	}
	if err := r.catalog.Update(ctx, catalogInputs(next, policy)); err != nil {
		return err
	}
	r.rules.Store(rules)
	r.recheck()
	r.running.Store(next)
	return nil
}

// readable reports every directory of statements that can't be read: later they may come and go.
func readable(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		if _, err := os.ReadDir(dir); err != nil {
			errs = append(errs, fmt.Errorf("trust.statements: %w", err))
		}
	}
	return errors.Join(errs...)
}

// needsRestart names every changed key that a running gateway can't take over.
func needsRestart(old, next *configs.Gateway) error {
	var errs []error
	for _, k := range []struct {
		key       string
		old, next any
	}{
		{"listen", old.Listen, next.Listen},
		{"identity", old.Identity, next.Identity},
		{"trust.root", old.Trust.Root, next.Trust.Root},
		{"trust.state", old.Trust.State, next.Trust.State},
		{"runtimes", old.Runtimes, next.Runtimes},
		{"memory", old.Memory, next.Memory},
		{"audit", old.Audit, next.Audit},
		{"operators", old.Operators, next.Operators},
	} {
		if !reflect.DeepEqual(k.old, k.next) {
			errs = append(errs, fmt.Errorf("%s: a change needs a restart", k.key))
		}
	}
	return errors.Join(errs...)
}
