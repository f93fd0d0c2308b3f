package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A site is a gateway's configuration and all that it decides by, read while the gateway may run: nothing is changed by
// reading it.
type site struct {
	cfg      *configs.Gateway
	anchor   trust.Anchor
	floor    trust.Floor   // of the state; that of a new site remembers nothing
	stateful bool          // there is a state directory
	accepted *trust.Policy // before, for who may sign the next
	policy   *trust.Policy // what the gateway decides by, nil if there is none yet
	set      []*statement.Signed
}

// readSite reads the site of a configuration file.
func readSite(path string) (*site, error) {
	cfg, err := configs.Load(path)
	if err != nil {
		return nil, err
	}
	in := &site{cfg: cfg}
	if in.anchor, err = anchorOf(cfg.Trust); err != nil {
		return nil, err
	}
	in.floor, err = store.ReadFloor(filepath.Join(cfg.Trust.State, store.FloorName))
	if in.stateful = err == nil; err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("trust.state: %w", err)
	}
	accepted := func() ([]byte, error) { return store.AcceptedPolicy(cfg.Trust.State, in.floor) }
	if in.accepted, err = acceptedPolicy(nil, accepted); err != nil {
		return nil, fmt.Errorf("trust.state: %w", err)
	}
	if in.set, _, err = store.ReadStatements(cfg.Trust.Statements); err != nil {
		return nil, fmt.Errorf("trust.statements: %w", err)
	}
	kept, err := store.KeptWithdrawals(cfg.Trust.State)
	if err != nil {
		return nil, fmt.Errorf("trust.state: %w", err)
	}
	in.set = append(in.set, kept...)
	switch bundles, err := readPolicyBundles(cfg.Trust.Policy); {
	case errors.Is(err, fs.ErrNotExist):
		if in.policy, err = acceptedPolicy(newKeyless, accepted); err != nil {
			return nil, fmt.Errorf("trust.state: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("trust.policy: %w", err)
	default:
		if in.policy, err = in.anchor.Accept(bundles, &in.floor, in.accepted); err != nil {
			return nil, refused(cfg.Trust.Policy, err)
		}
	}
	return in, nil
}

// decide decides by a policy, with more statements than lie there.
func (in *site) decide(p *trust.Policy, more []*statement.Signed) trust.Decision {
	return trust.Decide(p, append(in.set[:len(in.set):len(in.set)], more...), time.Now(), in.floor)
}
