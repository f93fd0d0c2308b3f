package trust

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// releaseCase is what one channel's requirements find about one release.
//
// Separation of duties follows the chain of acts: weights and adapters, release, evaluation, approval, publication. The first of the separated
// roles in which an identity acted on a release is the one it keeps; what it does in later ones does not count. So who
// produced a release can't approve or publish it, and who approved it can't publish it. Acting is signing as a member
// of the role, even where the statement has expired or speaks of another channel: that something lapsed must not free
// its signer for another role.
type releaseCase struct {
	channel   *channelCase
	id        statement.ID
	back      bool // as a rollback, or a fallback, would have it: evaluations do not age
	act       *act // nil if the release is not among the statements, or nobody we know signed it, or we can't read it
	withdrawn bool
	blocker   string // why no signature can help this release in this version; "" if nothing does

	weights, release, evaluation, approval met
	adapters                               []met                      // of each adapter of the release
	acted                                  map[string]map[string]bool // identity to the separated roles it acted in
	first                                  map[string]string          // identity to the first of them
	counted                                []TimedAct
	reasons                                []Reason
}

// met is one requirement and the identities that count for it, sorted.
type met struct {
	rule Rule
	by   []string
}

func (c *channelCase) openRelease(id statement.ID, back bool) *releaseCase {
	r := &releaseCase{channel: c, id: id, back: back, acted: map[string]map[string]bool{}, first: map[string]string{}}
	r.weights.rule, r.release.rule = c.rules.weightsRule(), c.rules.Require.Release
	if a := c.release(id); a != nil {
		r.act = a
		r.withdrawn = c.takenAway(a.release)
		if fields := a.release.Unenforceable(); len(fields) > 0 {
			r.blocker = fmt.Sprintf("this version can't enforce %s", strings.Join(fields, ", "))
		}
		if w := c.acts[a.release.weights.ID()]; w != nil {
			r.weights.by = r.judge(w, r.weights, "signed the weights", nil)
		}
		for _, adapter := range a.release.adapters {
			m := met{rule: r.weights.rule}
			if w := c.acts[adapter.Statement.ID()]; w != nil {
				m.by = r.judge(w, m, "signed an adapter", nil)
			}
			r.adapters = append(r.adapters, m)
		}
		r.release.by = r.judge(a, r.release, "signed the release", func() (string, string) {
			switch {
			case r.withdrawn:
				return RuleWithdrawn, "the release or its weights were withdrawn"
			case r.blocker != "":
				return RuleUnknownField, r.blocker
			}
			return "", ""
		})
	} else if a := c.acts[id]; a != nil && a.unread != nil {
		r.blocker = "the release can't be read by this version"
	}
	r.judgeEvaluations()
	r.judgeApprovals()
	return r
}

func (r *releaseCase) judgeApprovals() {
	c := r.channel
	if rule := c.rules.Require.Approval; rule != nil {
		r.approval.rule = *rule
	}
	for _, a := range inOrder(c.approvals[r.id]) {
		if c.rules.Require.Approval == nil {
			for _, who := range a.identities() {
				r.reasons = append(r.reasons, Reason{RuleScope, a.id, who, false, c.name + " requires no approval", a.kind})
			}
			continue
		}
		refuses := func() (string, string) { return c.refusesApproval(a) }
		r.approval.by = append(r.approval.by, r.judge(a, r.approval, "approved", refuses)...)
	}
	slices.Sort(r.approval.by)
}

// refusesApproval says whether an approval is for this channel and still stands.
func (c *channelCase) refusesApproval(a *act) (rule, why string) {
	if channels := a.approval.Channels; len(channels) > 0 && !slices.Contains(channels, c.name) {
		return RuleScope, fmt.Sprintf("approves for %s, not for %s", strings.Join(channels, ", "), c.name)
	}
	if expires := a.approval.Expires; !expires.IsZero() && !c.now.Before(expires) {
		return RuleExpired, "the approval expired on " + expires.Format(time.RFC3339)
	}
	return "", ""
}

// judge returns the identities behind one act that newly count for a requirement, and says why the others do not.
func (r *releaseCase) judge(a *act, m met, did string, refuses func() (rule, why string)) []string {
	var count []string
	role := m.rule.Role
	for _, who := range a.identities() {
		say := func(rule string, counted bool, format string, args ...any) {
			r.reasons = append(r.reasons, Reason{rule, a.id, who, counted, fmt.Sprintf(format, args...), a.kind})
		}
		if !r.channel.policy.holds(who, role) {
			say(RuleRole, false, "%s is no %s", who, role)
			continue
		}
		if why := r.channel.retired(a, who); why != "" {
			say(RuleLifecycle, false, "%s", why)
			continue
		}
		if first, ok := r.acts(who, role); !ok {
			say(RuleSeparation, false, "%s acted as %s on this release, so does not count as %s", who, first, role)
			continue
		}
		if rule, why := r.channel.lapsed(a, who); rule != "" {
			say(rule, false, "%s", why)
			continue
		}
		if refuses != nil {
			if rule, why := refuses(); rule != "" {
				say(rule, false, "%s", why)
				continue
			}
		}
		if slices.Contains(m.by, who) {
			say(RuleThreshold, false, "%s %s twice; one identity counts once", who, did)
			continue
		}
		count = append(count, who)
		r.counted = append(r.counted, a.by(who))
		say(RuleRole, true, "%s %s as %s", who, did, role)
		if a.keys(who) > 1 {
			say(RuleThreshold, false, "%s %s twice; one identity counts once", who, did)
		}
	}
	return count
}

// acts records that an identity acted in a role on this release. It returns false, and the role that it acted in
// first, if the two roles are separated here.
func (r *releaseCase) acts(who, role string) (first string, ok bool) {
	if !slices.Contains(r.channel.rules.Separate, role) {
		return "", true
	}
	if r.acted[who] == nil {
		r.acted[who] = map[string]bool{}
		r.first[who] = role
	}
	r.acted[who][role] = true
	return r.first[who], r.first[who] == role
}

// weightsSigners returns who signed the weights or an adapter, sorted.
func (r *releaseCase) weightsSigners() []string {
	all := slices.Clone(r.weights.by)
	for _, m := range r.adapters {
		all = append(all, m.by...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// missing returns the requirements that are not met, in the order of the chain.
func (r *releaseCase) missing() []Missing {
	c := r.channel
	var all []Missing
	lacks := func(m met, what, why string) {
		if need := c.policy.need(m.rule); len(m.by) < need {
			all = append(all, Missing{RuleThreshold, m.rule.Role, need, len(m.by), r.couldSupply(m), what, why})
		}
	}
	if r.blocker != "" {
		// Nobody can supply it: not a signature is missing but a version that reads this.
		need := c.policy.need(r.release.rule)
		all = append(all, Missing{RuleUnknownField, r.release.rule.Role, need, 0, nil, "releases", r.blocker})
	} else {
		why := ""
		if r.act == nil {
			why = fmt.Sprintf("release %s is not among the statements", r.id)
			if c.isRefused(r.id) {
				why = fmt.Sprintf("release %s is not signed by an identity that counts", r.id)
			}
		} else {
			lacks(r.weights, "signatures of the weights", "")
			for i, m := range r.adapters {
				lacks(m, "signatures of adapter "+r.act.release.adapters[i].Root, "")
			}
		}
		lacks(r.release, "signatures of the release", why)
	}
	if c.rules.Require.Evaluation != nil {
		lacks(r.evaluation, "evaluations", "")
	}
	if c.rules.Require.Approval != nil {
		lacks(r.approval, "approvals", "")
	}
	return all
}

// blocked reports whether what is missing keeps the release from being served. Mode warn relaxes evaluation and
// approval only.
func (r *releaseCase) blocked(missing []Missing) bool {
	if r.channel.rules.Mode != "warn" {
		return len(missing) > 0
	}
	return slices.ContainsFunc(missing, func(m Missing) bool { return m.What != "evaluations" && m.What != "approvals" })
}

// couldSupply returns the members of a requirement's role who do not count for it yet and still may: active, and not
// bound to another of the separated roles by what they did on this release.
func (r *releaseCase) couldSupply(m met) []string {
	role := m.rule.Role
	separate := slices.Contains(r.channel.rules.Separate, role)
	var could []string
	for _, who := range r.channel.policy.activeMembers(role) {
		others := maps.Clone(r.acted[who])
		delete(others, role)
		if !slices.Contains(m.by, who) && (!separate || len(others) == 0) {
			could = append(could, who)
		}
	}
	return could
}

// activeMembers returns the members of a role whose statements count, sorted.
func (p *Policy) activeMembers(role string) []string {
	members := slices.DeleteFunc(slices.Clone(p.doc.Roles[role].Members), func(who string) bool { return !p.active(who) })
	slices.Sort(members)
	return members
}

// String says what is missing as an operator reads it: "1 of 2 required approvals".
func (m Missing) String() string {
	text := fmt.Sprintf("%d of %d required %s", m.Have, m.Need, m.What)
	if m.Why != "" {
		text += " (" + m.Why + ")"
	}
	return text
}
