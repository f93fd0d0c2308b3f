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
	Public  []crypto.PublicKey
	Keyless KeylessFrom
}

// Accept returns the policy in the bundles, one bundle for each signer over identical bytes, if those signed it who may
// and the floor does not forbid it. Whatever else it returns wraps [ErrRefused]: the caller keeps the policy it has.
//
// The first policy is for enough of the pinned keys to sign. A later one is the next version, names its predecessor, and
// is signed by the threshold of root members of both: of last, which is the policy accepted before, and of its own. A
// policy without a role root leaves the root to the pinned keys. current and last are nil where none was ever accepted.
func (a Anchor) Accept(bundles []*statement.Signed, current *Floor, last *Policy) (*Policy, error) {
	p, err := a.accept(bundles, current, last)
	if err != nil {
		return nil, err
	}
	if err := p.attach(a.Keyless); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return p, nil
}

func (a Anchor) accept(bundles []*statement.Signed, current *Floor, last *Policy) (*Policy, error) {
	pinned := slices.Compact(slices.Sorted(slices.Values(a.Keys)))
	switch {
	case len(pinned) == 0:
		return nil, fmt.Errorf("%w: no root key is pinned", ErrRefused)
	case a.Threshold < 1 || a.Threshold > len(pinned):
		return nil, fmt.Errorf("%w: the root threshold is %d of %d pinned keys", ErrRefused, a.Threshold, len(pinned))
	case len(bundles) == 0:
		return nil, fmt.Errorf("%w: nothing is signed", ErrRefused)
	}
	refuse := func(rule, format string, args ...any) error {
		return &PolicyRefusal{Policy: bundles[0].ID(), Rule: rule, Why: fmt.Errorf(format, args...)}
	}
	for _, b := range bundles[1:] {
		if b.ID() != bundles[0].ID() {
			return nil, refuse(RuleSignature, "the bundles are over different policies (%s and %s)", bundles[0].ID(), b.ID())
		}
	}
	p, err := parsePolicy(bundles[0]) // its trusted roots are looked at once it is known who signed it
	if err != nil {
		return nil, refuse(RuleUnknownField, "%w", err)
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
		return nil, refuse(RuleEpochReplay, "its version %d is below the accepted version %d", p.Version(), have)
	case p.Version() == have && p.Digest() != current.PolicyDigest:
		return nil, refuse(RuleEpochConflict, "it is not the version %d that was accepted (%s, not %s)", have, p.Digest(), current.PolicyDigest)
	case p.Version() == have:
		return p, nil // these very bytes were accepted, whoever signed them since
	case p.Version() > have+1:
		return nil, refuse(RuleEpochJump, "version %d would skip version %d: accept that one first", p.Version(), have+1)
	case p.Previous() != current.PolicyDigest:
		return nil, refuse(RuleEpochConflict, "it does not name its predecessor: previous is %q, want %s", p.Previous(), current.PolicyDigest)
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

// A PolicyRefusal is why a policy may not be relied on, by the rule that it breaks: that of a statement in the same place.
// It is [ErrRefused].
type PolicyRefusal struct {
	Policy statement.ID
	Rule   string
	Why    error
}

func (r *PolicyRefusal) Error() string { return ErrRefused.Error() + ": " + r.Why.Error() }

// Unwrap makes it what it is and what it comes from.
func (r *PolicyRefusal) Unwrap() []error { return []error{ErrRefused, r.Why} }

// Reason is the refusal as a reason of a decision that there is not.
func (r *PolicyRefusal) Reason() Reason {
	return Reason{Rule: r.Rule, Statement: r.Policy, Why: r.Error(), Kind: kindPolicy}
}

// rootRole is the role whose members sign the next policy.
const rootRole = "root"

// checkPinned returns nil if enough of the pinned keys signed the policy.
func (a Anchor) checkPinned(p *Policy, pinned []statement.KeyID, bundles []*statement.Signed) error {
	if signed := a.signers(p, pinned, bundles); len(signed) < a.Threshold {
		why := fmt.Errorf("%d of %d required root keys signed it (keys of one identity count once)", len(signed), a.Threshold)
		return &PolicyRefusal{Policy: p.Digest(), Rule: RuleThreshold, Why: why}
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
		why := fmt.Errorf("%d of the %d root members that policy version %d requires signed it", len(signed), need, p.Version())
		return &PolicyRefusal{Policy: bundles[0].ID(), Rule: RuleThreshold, Why: why}
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
