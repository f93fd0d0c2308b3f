package trust

import (
	"cmp"
	"slices"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// judgeWithdrawals finds what enough members of the withdrawing role have taken away from this channel. A withdrawal is
// for ever, so it does not lapse with the certificate that it was signed under; by a key that two share it counts for nobody,
// as everything does.
func (c *channelCase) judgeWithdrawals() {
	by := map[Withdrawn][]string{}
	for _, a := range inOrder(c.withdrawals) {
		what := Withdrawn{Channel: c.name, Release: a.about}
		if a.withdrawal.Of == OfWeights {
			what.Release, what.Weights = "", string(a.about)
		}
		for _, who := range a.identities() {
			rule := c.rules.Withdraw
			switch {
			case rule == nil:
				c.say(RuleRole, a, who, false, "the policy lets nobody withdraw from %s", c.name)
			case !c.policy.holds(who, rule.Role):
				c.say(RuleRole, a, who, false, "%s is no %s, so may not withdraw from %s", who, rule.Role, c.name)
			case c.retired(a, who) != "":
				c.say(RuleLifecycle, a, who, false, "%s", c.retired(a, who))
			case c.shared(a, who) != "":
				c.say(RuleUnknownIdentity, a, who, false, "%s", c.shared(a, who))
			case slices.Contains(by[what], who):
				c.say(RuleThreshold, a, who, false, "%s withdrew it twice; one identity counts once", who)
			default:
				by[what] = append(by[what], who)
				c.say(RuleWithdrawn, a, who, true, "%s withdrew these %s as %s: %s", who, a.withdrawal.Of, rule.Role, a.withdrawal.Reason)
			}
		}
	}
	for what, who := range by {
		if len(who) >= c.policy.need(*c.rules.Withdraw) {
			c.withdrawn = append(c.withdrawn, what)
		}
	}
	slices.SortFunc(c.withdrawn, func(a, b Withdrawn) int {
		return cmp.Or(cmp.Compare(a.Release, b.Release), cmp.Compare(a.Weights, b.Weights))
	})
}

// takenAway reports whether a release, or its weights, were withdrawn from this channel, now or ever.
func (c *channelCase) takenAway(r *Release) bool {
	takes := func(w Withdrawn) bool { return w.takes(c.name, r) }
	return slices.ContainsFunc(c.floor.Withdrawn, takes) || slices.ContainsFunc(c.withdrawn, takes)
}

// fallBack says what becomes of a channel whose accepted publication counts no more, as its policy wants: nothing serves,
// an older release does, or what serves may go on. Only what somebody signed leads away from the accepted release: where a
// statement is merely gone, the channel stops.
func (c *channelCase) fallBack(out *Channel) {
	floor := c.floor.Channels[c.name]
	if len(floor.Served) == 0 {
		return
	}
	current := floor.Served[len(floor.Served)-1]
	then, withdrawn := "", false
	switch release := c.open(current, true); {
	case release.act != nil && release.withdrawn, c.withdrawnByID(current):
		then, withdrawn = c.rules.OnWithdrawal, true
	case c.lostQuorum(floor):
		then = c.rules.OnLostQuorum
		if missing := c.open(current, false).missing(); len(out.Pending) == 0 && len(missing) > 0 {
			out.Missing = missing
		}
	}
	switch then {
	case "freeze":
		out.Frozen = current
	case "previous":
		for _, id := range slices.Backward(floor.Served[:len(floor.Served)-1]) {
			// In place of what was withdrawn any release that was good may serve, as after a rollback. What has lost its
			// quorum gives way only to one that has not: its evaluation must not be older than it may be.
			release := c.open(id, withdrawn)
			if release.act == nil || release.withdrawn || release.blocked(release.missing()) {
				continue
			}
			if by := c.stands(release); by != nil {
				out.serve(release, floor.Epoch, floor.Publication)
				out.Fallback, out.By = true, by.id
				return
			}
		}
	}
}

// stands returns the publication of the release with the highest epoch that still has its publishers and has not expired, nil
// if there is none.
func (c *channelCase) stands(release *releaseCase) *act {
	newest := slices.SortedFunc(slices.Values(c.publications[c.name]), func(a, b *act) int {
		return cmp.Or(cmp.Compare(b.publication.Epoch, a.publication.Epoch), cmp.Compare(a.id, b.id))
	})
	for _, a := range newest {
		rule, expires := c.publishRule(a), a.publication.Expires
		if a.about != release.id || rule == nil || !expires.IsZero() && !c.now.Before(expires) {
			continue
		}
		if len(c.publishers(a, release)) >= c.policy.need(*rule) {
			return a
		}
	}
	return nil
}

// withdrawnByID reports whether a release that can't be read any more was withdrawn by its own id.
func (c *channelCase) withdrawnByID(release statement.ID) bool {
	takes := func(w Withdrawn) bool { return w.Release == release && (w.Channel == "" || w.Channel == c.name) }
	return slices.ContainsFunc(c.floor.Withdrawn, takes) || slices.ContainsFunc(c.withdrawn, takes)
}

// lostQuorum reports whether the accepted publication is here, with all that it rests on, and does not count for want of
// signers, its own or its release's. One that has expired, or that is withheld, stops whatever the policy says of quorums.
func (c *channelCase) lostQuorum(floor ChannelFloor) bool {
	here := false
	for _, r := range c.reasons {
		if r.Statement != floor.Publication {
			continue
		}
		if r.Rule == RuleExpired {
			return false
		}
		here = true
	}
	if len(floor.Rests) == 0 {
		return here // a floor that remembers no more than its publication
	}
	return !slices.ContainsFunc(floor.Rests, c.withheld)
}

// withheld reports whether an act that counted is gone without a reason that the policy gives: its identity has neither
// been removed, nor was it compromised when the act was made. What a trusted time has once said of that still holds where
// only the time is gone.
func (c *channelCase) withheld(was TimedAct) bool {
	identity, known := c.policy.doc.Identities[was.Identity]
	if !known {
		return false
	}
	if since := identity.State.Compromised; !since.IsZero() && !older(was.At, since) {
		return false
	}
	a := c.acts[was.Statement]
	return a == nil || len(a.signatures[was.Identity]) == 0
}
