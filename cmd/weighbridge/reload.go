package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
	running  *configs.Gateway
	state    *store.State
	rules    *atomic.Pointer[access.Policy]
	catalog  *catalog.Catalog
	identity *identity.Source
}

func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			if err := r.reload(ctx); err != nil {
				r.log.Error("configuration was not reloaded; the old one stays", "file", r.path, "err", err)
				continue
			}
			r.log.Info("configuration reloaded", "file", r.path)
		}
	}
}

// reload checks everything that can fail before it changes anything.
func (r *reloader) reload(ctx context.Context) error {
	next, err := configs.Load(r.path)
	if err != nil {
		return err
	}
	if err := needsRestart(r.running, next); err != nil {
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
	policy, err := acceptPolicy(r.log, next.Trust, r.state)
	if err != nil {
		return err
	}
	if err := r.catalog.Update(ctx, catalogInputs(next, policy)); err != nil {
		return err
	}
	r.rules.Store(rules)
	r.running = next
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
		{"operators", old.Operators, next.Operators},
	} {
		if !reflect.DeepEqual(k.old, k.next) {
			errs = append(errs, fmt.Errorf("%s: a change needs a restart", k.key))
		}
	}
	return errors.Join(errs...)
}
