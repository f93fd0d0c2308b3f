package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/control"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A mailbox writes submitted statements into the first directory of statements, and a submitted policy over the policy
// file: so the gateway finds them as it finds all others, and again when it starts anew.
type mailbox struct {
	catalog *catalog.Catalog
	state   *store.State
	running *atomic.Pointer[configs.Gateway]
}

// Submit implements [control.Mailbox].
func (m mailbox) Submit(_ context.Context, bundles []*statement.Signed, dryRun bool) (before, after trust.Decision, err error) {
	policies := 0
	for _, b := range bundles {
		if b.PredicateType() == trust.PolicyType {
			policies++
		}
	}
	switch policies {
	case 0:
		if before, after, err = m.catalog.Preview(bundles, nil); err == nil && !dryRun {
			err = m.keep(bundles)
		}
		return before, after, err
	case len(bundles):
		return m.replacePolicy(bundles, dryRun)
	}
	return before, after, control.ErrMixed
}

// keep writes statements, each whole or not at all. One that is there already is written over by itself.
func (m mailbox) keep(bundles []*statement.Signed) error {
	dirs := m.catalog.Statements()
	if len(dirs) == 0 {
		return catalog.ErrNotRunning
	}
	for _, b := range bundles {
		sum := sha256.Sum256(b.Bundle())
		name := fmt.Sprintf("submitted-%.16s-%.8s.json", b.ID().Hex(), hex.EncodeToString(sum[:]))
		if err := store.WriteFile(filepath.Join(dirs[0], name), b.Bundle(), 0o644); err != nil {
			return fmt.Errorf("keep statement %s: %w", b.ID(), err)
		}
	}
	return nil
}

// replacePolicy writes the policy file, once it is sure that the gateway will take it over.
func (m mailbox) replacePolicy(bundles []*statement.Signed, dryRun bool) (before, after trust.Decision, err error) {
	t := m.running.Load().Trust
	anchor, err := anchorOf(t)
	if err != nil {
		return before, after, err
	}
	last, err := acceptedPolicy(nil, m.state.Policy)
	if err != nil {
		return before, after, err
	}
	floor := m.state.Floor()
	policy, err := anchor.Accept(bundles, &floor, last)
	if err != nil {
		return before, after, err
	}
	if before, after, err = m.catalog.Preview(nil, policy); err != nil || dryRun {
		return before, after, err
	}
	var lines bytes.Buffer
	for _, b := range bundles {
		lines.Write(b.Bundle())
	}
	return before, after, store.WriteFile(t.Policy, lines.Bytes(), 0o644)
}
