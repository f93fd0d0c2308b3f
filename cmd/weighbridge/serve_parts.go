package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// acceptPolicy reads the trust policy, from its file or as it was accepted last, and makes its acceptance durable.
//
// It takes effect only after it was recorded, unless it serves nothing that is not served already: what only takes away must
// not wait for a log that can't be written.
func acceptPolicy(ctx context.Context, log *slog.Logger, t configs.Trust, state *store.State, trail catalog.Trail) (*trust.Policy, error) {
	anchor, err := anchorOf(t)
	if err != nil {
		return nil, err
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
	last, err := acceptedPolicy(nil, state.Policy)
	if err != nil {
		return nil, fmt.Errorf("trust.state: %w", err)
	}
	policy, err := anchor.Accept(bundles, current, last)
	if err != nil {
		return nil, fmt.Errorf("trust.policy: %s: %w", t.Policy, err)
	}
	if current != nil && current.PolicyDigest == policy.Digest() {
		return policy, nil
	}
	record := audit.Record{Kind: audit.KindPolicy, Statement: policy.Digest()}
	if _, err := trail.Append(ctx, record); err != nil {
		if !onlyReduces(t, state, policy) {
			return nil, fmt.Errorf("trust.policy: record its acceptance: %w", err)
		}
		trail.Note(record)
		log.Error("the audit log can't be written; a policy that only takes away is taken over all the same", "policy", policy.Digest(), "err", err)
	}
	noteIdentities(trail, last, policy)
	// The copy first: after a crash between the two, the floor still asks for a policy that is there.
	if err := state.KeepPolicy(policy.Version(), data); err != nil {
		return nil, fmt.Errorf("trust.policy: %w", err)
	}
	err = state.Raise(func(f trust.Floor) trust.Floor { return f.AcceptPolicy(policy, time.Now()) })
	if err != nil {
		return nil, fmt.Errorf("trust.policy: %w", err)
	}
	log.Info("trust policy accepted", "version", policy.Version(), "policy", policy.Digest(), "expires", policy.Expires())
	return policy, nil
}

// noteIdentities records which identities came, changed or went by a policy whose own record says that it is in force.
func noteIdentities(trail catalog.Trail, last, next *trust.Policy) {
	for _, change := range trust.IdentityChanges(last, next) {
		trail.Note(audit.Record{Kind: audit.KindIdentity, Identity: change.Identity, Statement: next.Digest(), Why: change.What})
	}
}

// onlyReduces reports whether by the next policy no channel would serve anything but what it serves by the last, or nothing.
func onlyReduces(t configs.Trust, state *store.State, next *trust.Policy) bool {
	last, err := acceptedPolicy(newKeyless, state.Policy)
	if err != nil {
		return false
	}
	set, _, err := store.ReadStatements(append(slices.Clone(t.Statements), state.WithdrawnDir()))
	if err != nil {
		return false
	}
	before, after := trust.Decide(last, set, time.Now(), state.Floor()), trust.Decide(next, set, time.Now(), state.Floor())
	for name, d := range after.Channels {
		if d.Serve != "" && d.Serve != before.Channels[name].Serve {
			return false
		}
	}
	return true
}

// anchorOf is what the site pins.
func anchorOf(t configs.Trust) (trust.Anchor, error) {
	anchor := trust.Anchor{Threshold: int(t.Root.Threshold), Keyless: newKeyless}
	for _, key := range t.Root.Keys {
		id, err := statement.ParseKeyID(key)
		if err != nil {
			return anchor, fmt.Errorf("trust.root.keys: %w", err)
		}
		anchor.Keys = append(anchor.Keys, id)
	}
	return anchor, nil
}

// acceptedPolicy reads the bundles of the policy that was accepted before, nil if there is none. It is not verified again:
// the floor names it by its digest. Without keyless it is good for [trust.Anchor.Accept] alone: who may sign the next policy
// does not depend on trusted roots, which this version may be unable to use by now.
func acceptedPolicy(keyless trust.KeylessFrom, read func() ([]byte, error)) (*trust.Policy, error) {
	data, err := read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // none was accepted, or kept, which is no error here
	}
	if err != nil {
		return nil, err
	}
	bundles, err := statement.ParseLines(data)
	if err != nil {
		return nil, err
	}
	if len(bundles) == 0 {
		return nil, errors.New("the accepted policy's file is empty")
	}
	return trust.ParsePolicy(bundles[0], keyless)
}

// watchSVID puts the end of the gateway's own SVID among the metrics of what ends. Without an SVID there is none.
func watchSVID(m metric.Meter, id *identity.Source) error {
	expiry, err := catalog.ExpiryTime(m)
	if err != nil {
		return err
	}
	_, err = m.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		if end, err := id.Expires(); err == nil {
			to.ObserveFloat64(expiry, catalog.Expiry(end), metric.WithAttributes(attribute.String("kind", "svid")))
		}
		return nil
	}, expiry)
	return err
}

// frontDoor shows the catalog to the gateway in the gateway's own words.
type frontDoor struct{ catalog *catalog.Catalog }

// Acquire implements [gateway.Catalog].
func (f frontDoor) Acquire(ctx context.Context, channel string) (gateway.Serving, error) {
	s, err := f.catalog.Acquire(ctx, channel)
	switch {
	case errors.Is(err, catalog.ErrUnknownChannel):
		return nil, fmt.Errorf("%w: %w", gateway.ErrUnknownChannel, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", gateway.ErrNotServing, err)
	}
	return serving{s}, nil
}

// Ready implements [gateway.Catalog].
func (f frontDoor) Ready() bool { return f.catalog.Ready() }

// Channels implements [gateway.Catalog].
func (f frontDoor) Channels() []gateway.ChannelInfo {
	status := f.catalog.Status()
	var all []gateway.ChannelInfo
	for _, name := range f.catalog.Channels() {
		s, ok := status[name]
		if !ok {
			continue // gone between the two calls
		}
		info := gateway.ChannelInfo{Channel: name, Release: s.Release, Weights: s.Weights, Level: s.Level, State: string(s.State), Since: s.Since}
		if s.Serves != nil {
			info.Size, info.Format, info.Does = s.Size, weightsFormat, does(s.Serves)
		}
		all = append(all, info)
	}
	return all
}

// weightsFormat is that of all weights which the runtimes take.
const weightsFormat = "gguf"

// does is what a release can be asked for, as far as it says itself: Ollama finds out from the weights.
func does(r *trust.Release) []string {
	if r.Runtime.Kind == llamacpp.Kind && r.Runtime.Args["embeddings"] == "true" {
		return []string{gateway.DoesEmbed}
	}
	if len(r.Behaviour.Tools) > 0 {
		return []string{gateway.DoesChat, gateway.DoesTools}
	}
	return []string{gateway.DoesChat}
}

type serving struct{ *catalog.Serving }

// Info implements [gateway.Serving].
func (s serving) Info() gateway.ServingInfo {
	b := s.Release().Behaviour
	limits := gateway.Limits{
		SystemPrompt: b.SystemPrompt, MaxTokens: b.Output.MaxTokens, Tools: b.Tools,
		Plain: s.Release().Runtime.Kind == llamacpp.Kind && b.SystemPrompt == "" && b.ChatTemplate == "",
	}
	if t := b.Sampling.Temperature; t != nil {
		limits.Temperature = gateway.Range{Default: &t.Default, Max: &t.Max}
	}
	if p := b.Sampling.TopP; p != nil {
		limits.TopP = gateway.Range{Default: &p.Default, Max: &p.Max}
	}
	return gateway.ServingInfo{
		Channel: s.Channel(), Release: string(s.ID()), Weights: s.Weights(), Level: string(s.Level()), Sandbox: s.Sandbox(), Limits: limits, Grounds: s.Grounds(),
	}
}
