package trust

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// Grounds are why a channel serves a release, to be shown to somebody else. They never change.
type Grounds struct {
	Policy      statement.ID // digest of the policy that decided
	Publication statement.ID // of the release
	Fallback    bool         // an older release serves in place of one that counts no more
	// Statements are the bundles that the release rests on: itself, with what it brings, then evaluations, approvals, what
	// else was signed of its weights, and its publication.
	Statements []*statement.Signed
}

// Grounds returns why a channel serves what was decided by this ledger, nil if it serves nothing.
func (l *Ledger) Grounds(channel string, c Channel, now time.Time) *Grounds {
	release := l.evidence.release(c.Serve)
	if c.Serve == "" || release == nil {
		return nil
	}
	g := &Grounds{Policy: l.policy.digest, Publication: c.By, Fallback: c.Fallback}
	var acts []Act
	for _, a := range c.Counted {
		acts = append(acts, a.Act)
	}
	if by := l.evidence.acts[c.By]; by != nil && c.Fallback { // of the publication that is fallen back on nothing was counted
		rule := l.policy.doc.Channels[channel].asks(by, channel)
		for _, who := range by.identities() {
			if rule != nil && l.policy.holds(who, rule.Role) {
				acts = append(acts, Act{by.id, who})
			}
		}
	}
	type shown struct {
		kind int
		id   statement.ID
		who  string
		s    *statement.Signed
	}
	var all []shown
	for _, was := range acts {
		a := l.evidence.acts[was.Statement]
		if a == nil || a.kind == kindWeights && release.brings(a.id, was.Identity, now) {
			continue
		}
		if s := l.evidence.best(a, was.Identity, now); s != nil {
			all = append(all, shown{slices.Index(groundsOrder, a.kind), a.id, was.Identity, s})
		}
	}
	slices.SortFunc(all, func(a, b shown) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id), strings.Compare(a.who, b.who))
	})
	for _, one := range all {
		g.Statements = append(g.Statements, one.s)
	}
	return g
}

var groundsOrder = []string{kindRelease, kindEvaluation, kindApproval, kindWeights, kindPublication}

// brings reports whether the release holds a signature of the identity on these weights, so that no other is needed.
func (a *act) brings(weights statement.ID, who string, now time.Time) bool {
	return slices.ContainsFunc(a.brought, func(s signature) bool {
		return s.identity == who && s.standsAt(now) && s.bundle.ID() == weights
	})
}

// best returns a bundle of the act by an identity: one that stands, by a key of its own, and with the earliest trusted time,
// which convinces also who hears of it later.
func (e *evidence) best(a *act, who string, now time.Time) *statement.Signed {
	rank := func(s signature) int {
		switch {
		case !s.standsAt(now), len(e.holders[s.key]) > 1:
			return 2
		case s.at.IsZero():
			return 1
		}
		return 0
	}
	signatures := a.signatures[who]
	if len(signatures) == 0 {
		return nil
	}
	return slices.MinFunc(signatures, func(a, b signature) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.at.Compare(b.at))
	}).bundle
}
