package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
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

// acceptPolicy reads the trust policy, from its file or as it was accepted last, and makes its acceptance durable.
func acceptPolicy(log *slog.Logger, t configs.Trust, state *store.State) (*trust.Policy, error) {
	anchor := trust.Anchor{Threshold: int(t.Root.Threshold)}
	for _, key := range t.Root.Keys {
		id, err := statement.ParseKeyID(key)
		if err != nil {
			return nil, fmt.Errorf("trust.root.keys: %w", err)
		}
		anchor.Keys = append(anchor.Keys, id)
	}
	var current *trust.Floor
	if floor := state.Floor(); floor.PolicyVersion > 0 {
		current = &floor
	}
	data, err := store.ReadFile(t.Policy, statement.MaxBundle)
	if errors.Is(err, fs.ErrNotExist) && current != nil {
		log.Warn("the policy file is gone; the policy accepted last stays", "file", t.Policy)
		data, err = state.Policy()
	}
	if err != nil {
		return nil, fmt.Errorf("trust.policy: %w", err)
	}
	bundles, err := statement.ParseLines(data)
	if err != nil {
		return nil, fmt.Errorf("trust.policy: %s: %w", t.Policy, err)
	}
	policy, err := anchor.Accept(bundles, current)
	if err != nil {
		return nil, fmt.Errorf("trust.policy: %s: %w", t.Policy, err)
	}
	if current != nil && current.PolicyDigest == policy.Digest() {
		return policy, nil
	}
	// The copy first: after a crash between the two, the floor still asks for a policy that is there.
	if err := state.KeepPolicy(data); err != nil {
		return nil, fmt.Errorf("trust.policy: %w", err)
	}
	err = state.Raise(func(f trust.Floor) trust.Floor { return f.AcceptPolicy(policy, time.Now()) })
	if err != nil {
		return nil, fmt.Errorf("trust.policy: %w", err)
	}
	log.Info("trust policy accepted", "version", policy.Version(), "policy", policy.Digest(), "expires", policy.Expires())
	return policy, nil
}

// identityConfig says where the gateway's own SVID comes from.
func identityConfig(c configs.Identity, log *slog.Logger) (identity.Config, error) {
	cfg := identity.Config{WorkloadAPI: c.WorkloadAPI, Hint: identity.HintGateway, Log: log}
	if c.Files != nil {
		cfg.Files = &identity.Files{SVID: c.Files.SVID, Key: c.Files.Key, Bundle: c.Files.Bundle}
	}
	if c.Development != nil {
		log.Warn("development identities: this process issues its own SVIDs, for whoever opens its socket as this user",
			"trustDomain", c.Development.TrustDomain, "socket", c.Development.Socket)
		cfg.Development = &identity.Development{TrustDomain: c.Development.TrustDomain, Socket: c.Development.Socket}
	}
	if c.SPIFFEID != "" {
		id, err := spiffeid.FromString(c.SPIFFEID)
		if err != nil {
			return cfg, fmt.Errorf("identity.spiffeID: %w", err)
		}
		cfg.ID = id
	}
	return cfg, nil
}

// frontDoor shows the catalog to the gateway in the gateway's own words.
type frontDoor struct{ catalog *catalog.Catalog }

// Acquire implements [gateway.Catalog].
func (f frontDoor) Acquire(channel string) (gateway.Serving, error) {
	s, err := f.catalog.Acquire(channel)
	switch {
	case errors.Is(err, catalog.ErrUnknownChannel):
		return nil, fmt.Errorf("%w: %w", gateway.ErrUnknownChannel, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", gateway.ErrNotServing, err)
	}
	return serving{s}, nil
}

// Channels implements [gateway.Catalog].
func (f frontDoor) Channels() []gateway.ChannelInfo {
	status := f.catalog.Status()
	var all []gateway.ChannelInfo
	for _, name := range f.catalog.Channels() {
		s, ok := status[name]
		if !ok {
			continue // gone between the two calls
		}
		all = append(all, gateway.ChannelInfo{
			Channel: name, Release: s.Release, Weights: s.Weights, Level: s.Level, State: string(s.State), Since: s.Since,
		})
	}
	return all
}

type serving struct{ *catalog.Serving }

// Info implements [gateway.Serving].
func (s serving) Info() gateway.ServingInfo {
	b := s.Release().Behaviour
	limits := gateway.Limits{SystemPrompt: b.SystemPrompt, MaxTokens: b.Output.MaxTokens}
	if t := b.Sampling.Temperature; t != nil {
		limits.Temperature = gateway.Range{Default: &t.Default, Max: &t.Max}
	}
	if p := b.Sampling.TopP; p != nil {
		limits.TopP = gateway.Range{Default: &p.Default, Max: &p.Max}
	}
	return gateway.ServingInfo{
		Channel: s.Channel(), Release: string(s.ID()), Weights: s.Weights(), Level: string(s.Level()), Limits: limits,
	}
}
