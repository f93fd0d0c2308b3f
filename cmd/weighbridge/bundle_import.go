package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/bundle"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

const (
	// followTimeout is how long a running gateway may take to take over a policy, which it does within a second.
	followTimeout = 30 * time.Second
	// followPoll is how often is looked whether it has.
	followPoll = 50 * time.Millisecond
)

func newBundleImportCmd(s streams) *cobra.Command {
	var config string
	var initState, asJSON bool
	cmd := &cobra.Command{
		Use:   "import FILE --config GATEWAY.yaml",
		Short: "Bring a bundle's weights, statements and policies to a gateway, which may run",
		Long: `Bring a bundle's weights, statements and policies to a gateway, which may run. All of it is checked before any of it
becomes visible: the policies by the site's pinned root keys and what it accepted before, the statements by the decision
that they lead to, the weights by the manifest that their release signed. An older bundle than what is here is refused.

An import that was interrupted is gone on with by running it again.`,
		Example: "  weighbridge bundle import chat.tar --config gateway.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			told, err := importBundle(cmd.Context(), config, args[0], initState)
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{}, bundleError("bundle import", err))
			}
			if asJSON {
				return printJSON(s.out, told)
			}
			fmt.Fprintf(s.out, "imported %d new statements; policy version %d\n", told.Statements, told.Policy)
			for _, name := range slices.Sorted(maps.Keys(told.Channels)) {
				fmt.Fprintf(s.out, "%s: %s\n", name, told.Channels[name])
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the gateway's configuration (required)")
	cmd.Flags().BoolVar(&initState, "init-state", false, "make the state directory of a new site")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cobra.CheckErr(cmd.MarkFlagRequired("config"))
	return cmd
}

// imported is what bundle import tells.
type imported struct {
	Statements int               `json:"statements"` // that were not here before
	Policy     int64             `json:"policy"`     // version in force
	Channels   map[string]change `json:"channels"`
}

// A change is what an import makes of a channel.
type change struct {
	Before *statement.ID `json:"before"`
	After  *statement.ID `json:"after"`
	Why    string        `json:"why,omitempty"` // nothing serves
}

func (c change) String() string {
	switch {
	case c.After == nil && c.Before == nil:
		return "serves nothing: " + c.Why
	case c.After == nil:
		return fmt.Sprintf("stops serving %s: %s", *c.Before, c.Why)
	case c.Before != nil && *c.Before == *c.After:
		return fmt.Sprintf("goes on to serve %s", *c.After)
	}
	return fmt.Sprintf("will serve %s", *c.After)
}

// importBundle checks everything that can be checked, and then makes it visible: weights, which nothing names yet, then
// statements, then policies.
func importBundle(ctx context.Context, config, path string, initState bool) (told imported, err error) {
	in, err := readSite(config)
	if err != nil {
		return told, err
	}
	if !in.stateful && !initState {
		return told, withHint(fmt.Errorf("%s: %w", in.cfg.Trust.State, store.ErrNoState), "for a new site add --init-state; an existing one needs its state back, or old publications count again")
	}
	b, err := bundle.Open(path)
	if err != nil {
		return told, err
	}
	defer b.Close()
	policies, err := in.follow(b)
	if err != nil {
		return told, err
	}
	policy := in.policy
	if len(policies) > 0 {
		policy = policies[len(policies)-1].policy
	}
	if policy == nil {
		return told, refused(path, errors.New("it brings no trust policy, and there is none here"))
	}
	if err := in.checkAge(b); err != nil {
		return told, err
	}
	if err := checkForged(trust.Decide(policy, b.Statements, time.Now(), in.floor)); err != nil {
		return told, err
	}
	after := in.decide(policy, b.Statements)
	need, err := in.missing(b, after)
	if err != nil {
		return told, err
	}
	// What can't be opened now could not be later, when weights were copied; and it is not held for as long as that takes.
	taker, err := in.policyTaker(policies, initState)
	if err != nil {
		return told, err
	}
	taker.close()
	for _, signature := range need {
		if err := b.PutWeights(ctx, in.cfg.Weights[0], signature); err != nil {
			return told, err
		}
	}
	if told.Statements, err = b.PutStatements(in.cfg.Trust.Statements[0]); err != nil {
		return told, err
	}
	if taker, err = in.policyTaker(policies, initState); err != nil {
		return told, err
	}
	defer taker.close()
	for _, u := range policies {
		if err := taker.take(ctx, u); err != nil {
			return told, err
		}
	}
	told.Policy, told.Channels = policy.Version(), in.changes(after)
	return told, nil
}

// changes says what becomes of each channel of the configuration.
func (in *site) changes(after trust.Decision) map[string]change {
	before := trust.Decision{}
	if in.policy != nil {
		before = in.decide(in.policy, nil)
	}
	all := map[string]change{}
	for name := range in.cfg.Channels {
		d := after.Channels[name]
		c := change{Before: release(before.Channels[name].Serve), After: release(d.Serve)}
		if c.After == nil {
			c.Why = refusedChannel(name, d).Error()
		}
		all[name] = c
	}
	return all
}

// An update is a policy that is new here.
type update struct {
	policy, last *trust.Policy // and the one before, if there is one
	lines        []byte
}

// follow returns the bundle's policies that are new here, each accepted after the one before it.
func (in *site) follow(b *bundle.Bundle) ([]update, error) {
	byVersion := map[int64][]*statement.Signed{}
	for _, bundles := range b.Policies {
		p, err := trust.ParsePolicy(bundles[0], nil)
		if err != nil {
			return nil, refused("the bundle's policy", err)
		}
		byVersion[p.Version()] = append(byVersion[p.Version()], bundles...)
	}
	versions := slices.Sorted(maps.Keys(byVersion))
	if len(versions) > 0 && versions[len(versions)-1] < in.floor.PolicyVersion {
		return nil, refused("the bundle", fmt.Errorf("it is older than this site: its policy has version %d, and version %d was accepted here", versions[len(versions)-1], in.floor.PolicyVersion))
	}
	floor, last := in.floor, in.accepted
	var all []update
	for _, version := range versions {
		if version < floor.PolicyVersion {
			continue
		}
		p, err := in.anchor.Accept(byVersion[version], &floor, last)
		if err != nil {
			return nil, refused("the bundle's policy", err)
		}
		if version == floor.PolicyVersion {
			continue // it is in force here
		}
		var lines bytes.Buffer
		for _, s := range byVersion[version] {
			lines.Write(s.Bundle())
		}
		all = append(all, update{p, last, lines.Bytes()})
		floor, last = floor.AcceptPolicy(p, floor.TimeHighWater), p
	}
	return all, nil
}

// checkAge refuses a bundle that would bring nothing but what this site has left behind.
func (in *site) checkAge(b *bundle.Bundle) error {
	newest := map[string]int64{}
	for _, s := range b.Statements {
		if _, p, err := trust.ParsePublication(s); err == nil {
			newest[p.Channel] = max(newest[p.Channel], p.Epoch)
		}
	}
	for _, channel := range slices.Sorted(maps.Keys(newest)) {
		if have := in.floor.Channels[channel].Epoch; newest[channel] < have {
			return refused("the bundle", fmt.Errorf("it is older than this site: its newest publication on %s has epoch %d, and epoch %d was accepted here", channel, newest[channel], have))
		}
	}
	return nil
}

// checkForged refuses a bundle with a statement that was altered or forged. Others that count for nothing do no harm.
func checkForged(d trust.Decision) error {
	for _, name := range slices.Sorted(maps.Keys(d.Channels)) {
		for _, r := range d.Channels[name].Reasons {
			if r.Rule == trust.RuleSignature {
				return refused("statement "+string(r.Statement), errors.New(r.Why))
			}
		}
	}
	return nil
}

// missing returns the signatures of weights that are to be brought here. What will serve must be here or in the bundle.
func (in *site) missing(b *bundle.Bundle, after trust.Decision) (need []*statement.Signed, err error) {
	for _, name := range slices.Sorted(maps.Keys(in.cfg.Channels)) {
		d := after.Channels[name]
		if d.Serve == "" {
			continue
		}
		for _, signature := range weightsOf(d.Release) {
			_, root := signature.Subject()
			if b.Holds("sha256:" + root) {
				need = append(need, signature)
			} else if _, err := in.findWeights(signature); err != nil {
				return nil, refused(name, fmt.Errorf("%w, nor are they in the bundle", err))
			}
		}
	}
	return need, nil
}

// A policyTaker makes a policy the one that the gateway decides by. Where no gateway runs it does as that would: it has the
// state and the log, and they were there, or could be made, before anything was changed.
type policyTaker struct {
	cfg   *configs.Gateway
	state *store.State // nil: a gateway runs
	trail *audit.Log
}

// policyTaker opens what taking policies over needs, and makes what a new site has not yet.
func (in *site) policyTaker(policies []update, initState bool) (*policyTaker, error) {
	p := &policyTaker{cfg: in.cfg}
	if in.stateful && len(policies) == 0 {
		return p, nil
	}
	if !in.stateful {
		if err := store.CreateState(in.cfg.Trust.State); err != nil {
			return nil, err
		}
		in.stateful = true
	}
	state, err := store.OpenState(in.cfg.Trust.State)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if floor := state.Floor(); floor.PolicyVersion != in.floor.PolicyVersion || floor.PolicyDigest != in.floor.PolicyDigest {
		err := fmt.Errorf("%s: another policy was accepted here meanwhile, of version %d", in.cfg.Trust.State, floor.PolicyVersion)
		return nil, errors.Join(withHint(err, "run the import again"), state.Close())
	}
	if p.trail, _, err = openTrail(in.cfg.Audit, initState, slog.New(slog.DiscardHandler)); err != nil {
		return nil, errors.Join(err, state.Close())
	}
	p.state = state
	return p, nil
}

func (p *policyTaker) close() {
	if p.state != nil {
		closeTrail(slog.New(slog.DiscardHandler), p.trail)
		p.state.Close()
	}
}

// take makes one more policy count. As the gateway does it: the record, the copy, and then the floor. The policy's own file
// comes before the floor too, so that an import that was interrupted finds the policy still to be taken.
func (p *policyTaker) take(ctx context.Context, u update) error {
	if p.state == nil {
		return p.handOver(ctx, u)
	}
	if _, err := p.trail.Append(ctx, audit.Record{Kind: audit.KindPolicy, Statement: u.policy.Digest()}); err != nil {
		return err
	}
	noteIdentities(p.trail, u.last, u.policy)
	if err := p.state.KeepPolicy(u.policy.Version(), u.lines); err != nil {
		return err
	}
	if err := store.WriteFile(p.cfg.Trust.Policy, u.lines, 0o644); err != nil {
		return err
	}
	return p.state.Raise(func(f trust.Floor) trust.Floor { return f.AcceptPolicy(u.policy, time.Now()) })
}

// handOver gives a policy to a gateway that runs: it follows its policy file, and takes one version at a time.
func (p *policyTaker) handOver(ctx context.Context, u update) error {
	if err := store.WriteFile(p.cfg.Trust.Policy, u.lines, 0o644); err != nil {
		return err
	}
	late := time.After(followTimeout)
	poll := time.NewTicker(followPoll)
	defer poll.Stop()
	for {
		floor, err := store.ReadFloor(filepath.Join(p.cfg.Trust.State, store.FloorName))
		if err != nil {
			return err
		}
		if floor.PolicyVersion >= u.policy.Version() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return withHint(fmt.Errorf("the gateway did not take over policy version %d", u.policy.Version()), "see its log, and run the import again")
		case <-poll.C:
		}
	}
}
