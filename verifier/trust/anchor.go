package trust

import (
	"cmp"
	"crypto"
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

// Accept returns the policy in the bundles, one bundle for each signer over identical bytes, if those signed it who may
// and the floor does not forbid it. Whatever else it returns wraps [ErrRefused]: the caller keeps the policy it has.
//
// The first policy is for enough of the pinned keys to sign. A later one is the next version, names its predecessor, and
// is signed by the threshold of root members of both: of last, which is the policy accepted before, and of its own. A
// policy without a role root leaves the root to the pinned keys. current and last are nil where none was ever accepted.
func (a Anchor) Accept(bundles []*statement.Signed, current *Floor, last *Policy) (*Policy, error) {
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
	if current == nil || current.PolicyVersion == 0 {
		if err := a.checkPinned(p, pinned, bundles); err != nil {
			return nil, err
		}
		return p, nil
	}
	have := current.PolicyVersion
	switch {
	case p.Version() < have:
		return nil, fmt.Errorf("%w: its version %d is below the accepted version %d", ErrRefused, p.Version(), have)
	case p.Version() == have && p.Digest() != current.PolicyDigest:
		return nil, fmt.Errorf("%w: it is not the version %d that was accepted (%s, not %s)", ErrRefused, have, p.Digest(), current.PolicyDigest)
	case p.Version() == have:
		return p, nil // these very bytes were accepted, whoever signed them since
	case p.Version() > have+1:
		return nil, fmt.Errorf("%w: version %d would skip version %d: accept that one first", ErrRefused, p.Version(), have+1)
	case p.Previous() != current.PolicyDigest:
		return nil, fmt.Errorf("%w: it does not name its predecessor: previous is %q, want %s", ErrRefused, p.Previous(), current.PolicyDigest)
	case last == nil || last.Digest() != current.PolicyDigest:
		return nil, fmt.Errorf("%w: the accepted version %d is not at hand, whose root members must sign the next", ErrRefused, have)
	}
	for _, root := range []*Policy{last, p} {
		if _, has := root.doc.Roles[rootRole]; !has {
			if err := a.checkPinned(p, pinned, bundles); err != nil {
				return nil, err
			}
			continue
		}
		if err := root.checkRoot(bundles); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// rootRole is the role whose members sign the next policy.
const rootRole = "root"

// checkPinned returns nil if enough of the pinned keys signed the policy.
func (a Anchor) checkPinned(p *Policy, pinned []statement.KeyID, bundles []*statement.Signed) error {
	if signed := a.signers(p, pinned, bundles); len(signed) < a.Threshold {
		return fmt.Errorf("%w: %d of %d required root keys signed it (keys of one identity count once)", ErrRefused, len(signed), a.Threshold)
	}
	return nil
}

// checkRoot returns nil if enough active members of the policy's root signed.
func (p *Policy) checkRoot(bundles []*statement.Signed) error {
	signed := map[string]bool{}
	for _, k := range p.keys {
		if !p.holds(k.identity, rootRole) || !p.active(k.identity) {
			continue
		}
		if slices.ContainsFunc(bundles, func(b *statement.Signed) bool { return b.VerifyKey(k.public) == nil }) {
			signed[k.identity] = true
		}
	}
	if need := p.need(Rule{Role: rootRole}); len(signed) < need {
		return fmt.Errorf("%w: %d of the %d root members that policy version %d requires signed it", ErrRefused, len(signed), need, p.Version())
	}
	return nil
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
