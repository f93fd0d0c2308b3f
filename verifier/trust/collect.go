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
	id         statement.ID
	kind       string
	signed     *statement.Signed
	unread     error                  // why it can't be read; it counts for nothing then
	signatures map[string][]signature // by identity; each once, sorted

	release     *Release     // of a release
	brought     []signature  // that verified, of the bundles within a release
	about       statement.ID // the release, or the weights' root, that the others are about
	approval    Approval
	publication Publication
	evaluation  Evaluation
	withdrawal  Withdrawal
}

func (a *act) identities() []string { return slices.Sorted(maps.Keys(a.signatures)) }

// evidence is what remains of the statements after every signature was verified: acts by known identities, readable to
// the last field. Everything else is a reason. It can be added to.
type evidence struct {
	policy  *Policy
	acts    map[statement.ID]*act
	refused []Reason                            // of statements that are no acts; the same for every channel
	holders map[statement.KeyID]map[string]bool // of keys in certificates: the identities that signed by them

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
		policy: p, acts: map[statement.ID]*act{}, holders: map[statement.KeyID]map[string]bool{}, publications: map[string][]*act{},
		approvals: map[statement.ID][]*act{}, evaluations: map[statement.ID][]*act{},
	}
}

// inOrder returns acts in the order of their ids, which does not depend on how they came.
func inOrder(acts []*act) []*act {
	return slices.SortedFunc(slices.Values(acts), func(a, b *act) int { return cmp.Compare(a.id, b.id) })
}

// add verifies one bundle and keeps it if an identity of the policy made it whose statements may still count. Nothing
// of a predicate is read before that. Adding a bundle again changes nothing but the reasons, which are told once.
func (e *evidence) add(s *statement.Signed) (sig signature, ok bool) {
	id, kind := s.ID(), kindOf[s.PredicateType()]
	refuse := func(rule, who, format string, args ...any) {
		e.refused = append(e.refused, Reason{rule, id, who, false, fmt.Sprintf(format, args...), kind})
	}
	if kind == kindPolicy {
		refuse(RuleUnknownPredicate, "", "a policy is accepted by the site's root keys, never from among the statements")
		return sig, false
	}
	sig, rule, who, why := e.policy.signer(s)
	sig.bundle = s
	switch {
	case rule != "":
		refuse(rule, who, "%s", why)
	case kind == "":
		refuse(RuleUnknownPredicate, sig.identity, "this version does not read statements of type %.200q", s.PredicateType())
	default:
		a := e.acts[id]
		if a == nil {
			a = &act{id: id, kind: kind, signed: s, signatures: map[string][]signature{}}
			e.acts[id] = a
			e.index(a)
		}
		a.add(sig)
		if len(sig.spans) > 0 {
			if e.holders[sig.key] == nil {
				e.holders[sig.key] = map[string]bool{}
			}
			e.holders[sig.key][sig.identity] = true
		}
		return sig, true
	}
	return sig, false
}

// add keeps one signature more.
func (a *act) add(sig signature) {
	all := a.signatures[sig.identity]
	if at, there := slices.BinarySearchFunc(all, sig, compareSignatures); !there {
		a.signatures[sig.identity] = slices.Insert(all, at, sig)
	}
}

// by returns an identity's part in it.
func (a *act) by(who string) TimedAct {
	did := TimedAct{Act: Act{a.id, who}}
	for _, s := range a.signatures[who] {
		if did.At.IsZero() || older(s.at, did.At) {
			did.At = s.at
		}
	}
	return did
}

// keys returns how many distinct keys of an identity signed.
func (a *act) keys(who string) int {
	distinct := map[statement.KeyID]bool{}
	for _, s := range a.signatures[who] {
		distinct[s.key] = true
	}
	return len(distinct)
}

// index reads a new act and puts it where it is looked for.
func (e *evidence) index(a *act) {
	if a.unread = a.read(); a.unread != nil {
		e.unread = append(e.unread, a)
		return
	}
	switch a.kind {
	case kindRelease:
		e.bring(a, a.release.weights) // which it brings along; their signature is judged like any other
		for _, adapter := range a.release.adapters {
			e.bring(a, adapter.Statement)
		}
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

// bring adds a bundle that stands within a release.
func (e *evidence) bring(release *act, s *statement.Signed) {
	if sig, ok := e.add(s); ok {
		release.brought = append(release.brought, sig)
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
