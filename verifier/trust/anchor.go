package trust

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// An Anchor is the root of trust: what the site itself pins. It is not in the policy, so that no policy can choose
// who may replace it. Its zero value accepts nothing.
type Anchor struct {
	Keys      []statement.KeyID
	Threshold int
	// Public are keys the site holds itself. They grant nothing by being here: each is used only to check the
	// signature of a pinned key whose id it has. A policy usually brings these keys itself.
	Public []crypto.PublicKey
}

// Accept returns the policy in the bundles, one bundle for each signer over identical bytes, if enough of the pinned
// keys signed it and the floor does not forbid it. current is nil where no policy was ever accepted. Whatever else it
// returns wraps [ErrRefused]: the caller keeps the policy it has.
func (a Anchor) Accept(bundles []*statement.Signed, current *Floor) (*Policy, error) {
	pinned := slices.Compact(slices.Sorted(slices.Values(a.Keys)))
	switch {
	case len(pinned) == 0:
		return nil, fmt.Errorf("%w: no root key is pinned", ErrRefused)
	case a.Threshold < 1 || a.Threshold > len(pinned):
		return nil, fmt.Errorf("%w: the root threshold is %d of %d pinned keys", ErrRefused, a.Threshold, len(pinned))
	case len(bundles) == 0:
		return nil, fmt.Errorf("%w: nothing is signed", ErrRefused)
	}
	for _, b := range bundles[1:] {
		if b.ID() != bundles[0].ID() {
			return nil, fmt.Errorf("%w: the bundles are over different policies (%s and %s)", ErrRefused, bundles[0].ID(), b.ID())
		}
	}
	p, err := ParsePolicy(bundles[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if signed := a.signers(p, pinned, bundles); len(signed) < a.Threshold {
		return nil, fmt.Errorf("%w: %d of %d required root keys signed it (keys of one identity count once)", ErrRefused, len(signed), a.Threshold)
	}
	if err := p.above(current); err != nil {
		return nil, err
	}
	return p, nil
}

// signers returns the distinct parties behind the pinned keys that signed: an identity of the policy, or a key by
// itself. The policy is not trusted yet, and need not be: a key is taken from it only if it has a pinned id, and
// naming an identity for it can only lower the count.
func (a Anchor) signers(p *Policy, pinned []statement.KeyID, bundles []*statement.Signed) map[string]bool {
	keys := map[statement.KeyID]crypto.PublicKey{}
	for _, pub := range slices.Concat(a.Public, p.roots) {
		if id, err := statement.KeyIDOf(pub); err == nil {
			keys[id] = pub
		}
	}
	for id, k := range p.keys {
		keys[id] = k.public
	}
	signed := map[string]bool{}
	for _, id := range pinned {
		pub, known := keys[id]
		if !known {
			continue
		}
		if slices.ContainsFunc(bundles, func(b *statement.Signed) bool { return b.VerifyKey(pub) == nil }) {
			signed[cmp.Or(p.IdentityOf(id), string(id))] = true
		}
	}
	return signed
}

var errRotation = errors.New("replacing an accepted policy by a later version is not in this version of weighbridge")

// above refuses a policy that would go back behind the one that was accepted.
func (p *Policy) above(current *Floor) error {
	if current == nil || current.PolicyVersion == 0 {
		return nil
	}
	have := current.PolicyVersion
	switch {
	case p.Version() < have:
		return fmt.Errorf("%w: its version %d is below the accepted version %d", ErrRefused, p.Version(), have)
	case p.Version() > have:
		return fmt.Errorf("%w: version %d over the accepted version %d: %w", ErrRefused, p.Version(), have, errRotation)
	case p.Digest() != current.PolicyDigest:
		return fmt.Errorf("%w: it is not the version %d that was accepted (%s, not %s)", ErrRefused, have, p.Digest(), current.PolicyDigest)
	}
	return nil
}
