package trust

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// An act is one statement and the identities that signed it, active or retired, in however many bundles. It is keyed on the
// statement's id and the identity, never on a bundle's bytes: anyone can make a second valid bundle of a statement.
type act struct {
	id     statement.ID
	kind   string
	signed *statement.Signed
	keys   map[string]map[statement.KeyID]bool // identity to those of its keys that signed

	release     *Release     // of a release
	about       statement.ID // the release, or the weights' root, that the others are about
	approval    Approval
	publication Publication
	evaluation  Evaluation
	withdrawal  Withdrawal
}

func (a *act) identities() []string { return slices.Sorted(maps.Keys(a.keys)) }

// evidence is what remains of the statements after every signature was verified: acts by known, active identities,
// readable to the last field. Everything else is a reason.
type evidence struct {
	policy  *Policy
	acts    map[statement.ID]*act
	reasons []Reason // the same for every channel

	publications []*act                  // by id
	withdrawals  []*act                  // by id
	approvals    map[statement.ID][]*act // of a release, by id
	evaluations  map[statement.ID][]*act // of a release, by id
	others       []*act                  // releases, approvals, evaluations and weights, by id
}

var kindOf = map[string]string{
	PolicyType:        kindPolicy,
	ReleaseType:       kindRelease,
	ApprovalType:      kindApproval,
	EvaluationType:    kindEvaluation,
	WithdrawalType:    kindWithdrawal,
	PublicationType:   kindPublication,
	oms.PredicateType: kindWeights,
}

func collect(p *Policy, set []*statement.Signed) *evidence {
	e := &evidence{policy: p, acts: map[statement.ID]*act{}}
	for _, s := range set {
		e.add(s)
	}
	for _, a := range e.of(kindRelease, kindApproval, kindPublication, kindEvaluation, kindWithdrawal) {
		if err := a.read(); err != nil {
			for _, who := range a.identities() {
				e.reasons = append(e.reasons, Reason{RuleUnknownField, a.id, who, false, err.Error(), a.kind})
			}
			delete(e.acts, a.id)
		}
	}
	// A release brings the statement of its weights along. Its signature is judged like any other.
	for _, a := range e.of(kindRelease) {
		e.add(a.release.weights)
	}
	e.publications, e.withdrawals = e.of(kindPublication), e.of(kindWithdrawal)
	e.others = e.of(kindRelease, kindApproval, kindEvaluation, kindWeights)
	e.approvals, e.evaluations = e.about(kindApproval), e.about(kindEvaluation)
	return e
}

// about returns the acts of a kind by what they are about.
func (e *evidence) about(kind string) map[statement.ID][]*act {
	found := map[statement.ID][]*act{}
	for _, a := range e.of(kind) {
		found[a.about] = append(found[a.about], a)
	}
	return found
}

// of returns the acts of some kinds in the order of their ids.
func (e *evidence) of(kinds ...string) []*act {
	var found []*act
	for _, a := range e.acts {
		if slices.Contains(kinds, a.kind) {
			found = append(found, a)
		}
	}
	slices.SortFunc(found, func(a, b *act) int { return cmp.Compare(a.id, b.id) })
	return found
}

// add verifies one bundle and keeps it if an identity of the policy made it whose statements may still count. Nothing
// of a predicate is read before that.
func (e *evidence) add(s *statement.Signed) {
	id, kind := s.ID(), kindOf[s.PredicateType()]
	refuse := func(rule, who, format string, args ...any) {
		e.reasons = append(e.reasons, Reason{rule, id, who, false, fmt.Sprintf(format, args...), kind})
	}
	if kind == kindPolicy {
		refuse(RuleUnknownPredicate, "", "a policy is accepted by the site's root keys, never from among the statements")
		return
	}
	k, rule, why := e.policy.signer(s)
	switch {
	case rule != "":
		refuse(rule, "", "%s", why)
	case kind == "":
		refuse(RuleUnknownPredicate, k.identity, "this version does not read statements of type %.200q", s.PredicateType())
	case !e.policy.doc.Identities[k.identity].State.Compromised.IsZero():
		refuse(RuleLifecycle, k.identity, "%s is %s, and no trusted time says that this is older", k.identity, e.policy.doc.Identities[k.identity].State)
	default:
		a := e.acts[id]
		if a == nil {
			a = &act{id: id, kind: kind, signed: s, keys: map[string]map[statement.KeyID]bool{}}
			e.acts[id] = a
		}
		if a.keys[k.identity] == nil {
			a.keys[k.identity] = map[statement.KeyID]bool{}
		}
		a.keys[k.identity][k.id] = true
	}
}

// read parses the predicate of an act.
func (a *act) read() (err error) {
	switch a.kind {
	case kindRelease:
		a.release, err = ParseRelease(a.signed)
	case kindApproval:
		a.about, a.approval, err = ParseApproval(a.signed)
	case kindPublication:
		a.about, a.publication, err = ParsePublication(a.signed)
	case kindEvaluation:
		a.about, a.evaluation, err = ParseEvaluation(a.signed)
	case kindWithdrawal:
		a.about, a.withdrawal, err = ParseWithdrawal(a.signed)
	}
	return err
}

// signer returns the key of the policy that made the bundle's signature, or the rule it breaks and why.
func (p *Policy) signer(s *statement.Signed) (k *key, rule, why string) {
	if s.Material() != statement.MaterialKey {
		return nil, RuleUnknownIdentity, "signed under a certificate; this version knows identities by their keys only"
	}
	if hint := s.Hint(); hint != "" {
		k := p.hints[hint]
		if k == nil {
			return nil, RuleUnknownIdentity, "signed by a key that the policy gives to no identity"
		}
		if err := s.VerifyKey(k.public); err != nil {
			return nil, RuleSignature, fmt.Sprintf("names a key of %s, but its signature is not by that key: the statement was altered or forged", k.identity)
		}
		return k, "", ""
	}
	for _, id := range slices.Sorted(maps.Keys(p.keys)) {
		if k := p.keys[id]; s.VerifyKey(k.public) == nil {
			return k, "", ""
		}
	}
	return nil, RuleUnknownIdentity, "no key that the policy gives to an identity made its signature"
}
