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
	unread error                               // why it can't be read; it counts for nothing then
	keys   map[string]map[statement.KeyID]bool // identity to those of its keys that signed

	release     *Release     // of a release
	about       statement.ID // the release, or the weights' root, that the others are about
	approval    Approval
	publication Publication
	evaluation  Evaluation
	withdrawal  Withdrawal
}

func (a *act) identities() []string { return slices.Sorted(maps.Keys(a.keys)) }

// evidence is what remains of the statements after every signature was verified: acts by known identities, readable to
// the last field. Everything else is a reason. It can be added to.
type evidence struct {
	policy  *Policy
	acts    map[statement.ID]*act
	refused []Reason // of statements that are no acts; the same for every channel

	// Indices of the acts that can be read. Their lists are in the order in which statements came: see inOrder.
	publications map[string][]*act       // by channel
	approvals    map[statement.ID][]*act // by release
	evaluations  map[statement.ID][]*act // by release
	withdrawals  []*act
	unread       []*act // the others
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

func newEvidence(p *Policy) *evidence {
	return &evidence{
		policy: p, acts: map[statement.ID]*act{}, publications: map[string][]*act{},
		approvals: map[statement.ID][]*act{}, evaluations: map[statement.ID][]*act{},
	}
}

// inOrder returns acts in the order of their ids, which does not depend on how they came.
func inOrder(acts []*act) []*act {
	return slices.SortedFunc(slices.Values(acts), func(a, b *act) int { return cmp.Compare(a.id, b.id) })
}

// add verifies one bundle and keeps it if an identity of the policy made it whose statements may still count. Nothing
// of a predicate is read before that. Adding a bundle again changes nothing but the reasons, which are told once.
func (e *evidence) add(s *statement.Signed) {
	id, kind := s.ID(), kindOf[s.PredicateType()]
	refuse := func(rule, who, format string, args ...any) {
		e.refused = append(e.refused, Reason{rule, id, who, false, fmt.Sprintf(format, args...), kind})
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
			e.index(a)
		}
		if a.keys[k.identity] == nil {
			a.keys[k.identity] = map[statement.KeyID]bool{}
		}
		a.keys[k.identity][k.id] = true
	}
}

// index reads a new act and puts it where it is looked for.
func (e *evidence) index(a *act) {
	if a.unread = a.read(); a.unread != nil {
		e.unread = append(e.unread, a)
		return
	}
	switch a.kind {
	case kindRelease:
		e.add(a.release.weights) // which it brings along; their signature is judged like any other
	case kindApproval:
		e.approvals[a.about] = append(e.approvals[a.about], a)
	case kindEvaluation:
		e.evaluations[a.about] = append(e.evaluations[a.about], a)
	case kindPublication:
		e.publications[a.publication.Channel] = append(e.publications[a.publication.Channel], a)
	case kindWithdrawal:
		e.withdrawals = append(e.withdrawals, a)
	}
}

// release returns the release with an id, nil if there is none that can be read.
func (e *evidence) release(id statement.ID) *act {
	if a := e.acts[id]; a != nil && a.kind == kindRelease && a.unread == nil {
		return a
	}
	return nil
}

// reasons returns why statements count for no channel at all.
func (e *evidence) reasons() []Reason {
	all := slices.Clone(e.refused)
	for _, a := range e.unread {
		for _, who := range a.identities() {
			all = append(all, Reason{RuleUnknownField, a.id, who, false, a.unread.Error(), a.kind})
		}
	}
	return all
}

// isRefused reports whether a statement was presented that is no act, or can't be read.
func (e *evidence) isRefused(id statement.ID) bool {
	if a := e.acts[id]; a != nil {
		return a.unread != nil
	}
	return slices.ContainsFunc(e.refused, func(r Reason) bool { return r.Statement == id })
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
