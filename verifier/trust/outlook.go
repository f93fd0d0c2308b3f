package trust

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// An End is when something that a served release rests on ceases to count.
type End struct {
	Kind     string // policy, publication, evaluation or approval
	At       time.Time
	Identity string // whose evaluation or approval it is, "" of the others
}

// Ends returns what a channel's decision, by this ledger, rests on and that has an end, in the order of the kinds. Of
// evaluations and approvals it is the one with which there are too few.
func (l *Ledger) Ends(channel string, c Channel) []End {
	if l.policy == nil || c.Serve == "" {
		return nil
	}
	ends := []End{{Kind: kindPolicy, At: l.policy.Expires()}}
	rules, back := l.policy.doc.Channels[channel].Require, c.Fallback
	if a := l.evidence.acts[c.Publication]; a != nil {
		back = back || a.publication.Rollback
		if expires := a.publication.Expires; !expires.IsZero() {
			ends = append(ends, End{Kind: kindPublication, At: expires})
		}
	}
	if rule := rules.Evaluation; rule != nil && !back { // what was served before may rest on an evaluation of any age
		if age, err := ParseAge(rule.MaxAge); err == nil {
			ends = append(ends, l.tooFew(c, kindEvaluation, *rule, func(a *act) time.Time { return a.evaluation.FinishedOn.Add(age) })...)
		}
	}
	if rule := rules.Approval; rule != nil {
		ends = append(ends, l.tooFew(c, kindApproval, *rule, func(a *act) time.Time { return a.approval.Expires })...)
	}
	return ends
}

// tooFew returns the end with which too few identities are left for a rule, nothing if that never comes or, in mode warn,
// has come already. until is when an act ends, zero if it never does.
func (l *Ledger) tooFew(c Channel, kind string, rule Rule, until func(*act) time.Time) []End {
	last := map[string]time.Time{} // of each identity that counts; zero: it always will
	for _, r := range c.Reasons {
		a := l.evidence.acts[r.Statement]
		// A second statement of one identity breaks the threshold rule only: it counts as soon as the first does not.
		if a == nil || a.kind != kind || a.about != c.Serve || !r.Counted && r.Rule != RuleThreshold {
			continue
		}
		at, counts := last[r.Identity]
		if end := until(a); !counts || !at.IsZero() && (end.IsZero() || end.After(at)) {
			last[r.Identity] = end
		}
	}
	spare := len(last) - l.policy.need(rule)
	ends := []End{}
	for who, at := range last {
		if !at.IsZero() {
			ends = append(ends, End{kind, at, who})
		}
	}
	slices.SortFunc(ends, func(a, b End) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Identity, b.Identity)) })
	if spare < 0 || spare >= len(ends) {
		return nil
	}
	return ends[spare : spare+1]
}

// Refusals returns the rules by which a channel serves nothing, or an older release in place of the accepted one: those of
// what is missing, and those by which something that was signed for it does not count. floor is the one that was decided
// by. What says nothing of the newest publications, or is signed by nobody the policy knows, is not among them.
func (l *Ledger) Refusals(channel string, c Channel, floor Floor) []string {
	if l.policy == nil || c.Serve != "" && !c.Fallback {
		return nil
	}
	broken := map[string]bool{}
	for _, m := range c.Missing {
		broken[m.Rule] = true
	}
	concerns := l.concerns(channel, floor.Channels[channel])
	for _, r := range c.Reasons {
		switch {
		case r.Counted, r.Rule == RuleScope, r.Rule == RuleEpochReplay, r.Rule == RuleThreshold: // of the last, missing says it
		case r.Statement == l.policy.digest, r.Identity != "" && concerns[r.Statement]:
			broken[r.Rule] = true
		}
	}
	return slices.Sorted(maps.Keys(broken))
}

// concerns returns the statements that bear on what a channel is to serve now: publications that are not behind the
// floor, their releases, and what is about these. Those of compromised identities are no acts, and are among them.
func (l *Ledger) concerns(channel string, floor ChannelFloor) map[statement.ID]bool {
	all, releases := map[statement.ID]bool{}, map[statement.ID]bool{}
	if n := len(floor.Served); n > 0 {
		releases[floor.Served[n-1]] = true
	}
	for _, a := range l.evidence.publications[channel] {
		if a.publication.Epoch >= floor.Epoch {
			all[a.id], releases[a.about] = true, true
		}
	}
	for id := range releases {
		all[id] = true
		if a := l.evidence.release(id); a != nil {
			all[a.release.weights.ID()] = true
		}
	}
	for s := range l.held {
		if releases[subjectID(s)] {
			all[s.ID()] = true
		}
	}
	return all
}

// A Use is what statements show that an identity does.
type Use struct {
	Roles map[string]bool          // in which it signed something of the kind that a rule asks of them
	Keys  map[statement.KeyID]bool // that it signed with
}

// Uses returns the use of each identity that signed any statement of the ledger, whether or not it counts by now.
func (l *Ledger) Uses() map[string]Use {
	uses := map[string]Use{}
	if l.policy == nil {
		return uses
	}
	for _, a := range l.evidence.acts {
		if a.unread != nil {
			continue
		}
		for _, who := range a.identities() {
			if _, known := uses[who]; !known {
				uses[who] = Use{map[string]bool{}, map[statement.KeyID]bool{}}
			}
			for channel, rules := range l.policy.doc.Channels {
				if rule := rules.asks(a, channel); rule != nil && l.policy.holds(who, rule.Role) {
					uses[who].Roles[rule.Role] = true
				}
			}
		}
		l.usedKeys(a.signed, uses)
	}
	for s := range l.held { // another bundle of a statement may be by another key
		l.usedKeys(s, uses)
	}
	return uses
}

// usedKeys adds the key that made a bundle's signature.
func (l *Ledger) usedKeys(s *statement.Signed, uses map[string]Use) {
	for id, k := range l.policy.keys {
		if use, known := uses[k.identity]; known && !use.Keys[id] && s.VerifyKey(k.public) == nil {
			use.Keys[id] = true
		}
	}
}

// asks returns the rule of a channel that an act may be for, nil if there is none.
func (c ChannelRules) asks(a *act, channel string) *Rule {
	switch a.kind {
	case kindWeights:
		return new(c.weightsRule())
	case kindRelease:
		return &c.Require.Release
	case kindEvaluation:
		return c.Require.Evaluation
	case kindApproval:
		if named := a.approval.Channels; len(named) == 0 || slices.Contains(named, channel) {
			return c.Require.Approval
		}
	case kindPublication:
		switch {
		case a.publication.Channel != channel:
		case a.publication.Rollback:
			return c.Rollback
		default:
			return &c.Publish
		}
	case kindWithdrawal:
		return c.Withdraw
	}
	return nil
}
