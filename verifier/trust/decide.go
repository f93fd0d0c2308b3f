package trust

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// Decide says what each channel of the policy may serve. It is pure: the order of the statements, how often each comes
// and in which bundle change nothing. now is the gateway's clock; a floor from the future prevails over it. A nil
// policy decides for no channel.
func Decide(p *Policy, set []*statement.Signed, now time.Time, floor Floor) Decision {
	l := NewLedger(p)
	l.Follow(set)
	return l.decide(now, floor, false)
}

// A Ledger holds statements, verified by one policy, for one decision after another: what was verified and read before
// is not again. It must not be used concurrently. Make one with [NewLedger].
type Ledger struct {
	policy   *Policy
	evidence *evidence
	held     map[*statement.Signed]bool
}

// NewLedger returns a Ledger without statements. A nil policy decides for no channel.
func NewLedger(p *Policy) *Ledger {
	return &Ledger{policy: p, evidence: newEvidence(p), held: map[*statement.Signed]bool{}}
}

// Follow makes the ledger hold exactly these statements, and reports whether they are others than before. It costs what is
// new among them; where one is gone it costs them all.
func (l *Ledger) Follow(set []*statement.Signed) (changed bool) {
	if l.policy == nil {
		return false
	}
	there := 0
	for _, s := range set {
		if l.held[s] {
			there++
		}
	}
	if there < len(l.held) {
		l.evidence, l.held = newEvidence(l.policy), map[*statement.Signed]bool{}
		changed = true
	}
	for _, s := range set {
		if !l.held[s] {
			l.held[s] = true
			l.evidence.add(s)
			changed = true
		}
	}
	return changed
}

// Judged returns of every statement whether it is an act of an identity of the policy, or why it is none: once for each
// identity that signed it, whatever any channel makes of it.
func (l *Ledger) Judged() []Reason {
	all := l.evidence.reasons()
	for id, a := range l.evidence.acts {
		if a.unread != nil {
			continue
		}
		for _, who := range a.identities() {
			all = append(all, Reason{Statement: id, Identity: who, Counted: true, Kind: a.kind})
		}
	}
	return sortReasons(all)
}

// Decide is [Decide] of what the ledger holds, without the reasons of statements that are about other channels and
// releases.
func (l *Ledger) Decide(now time.Time, floor Floor) Decision { return l.decide(now, floor, true) }

func (l *Ledger) decide(now time.Time, floor Floor, brief bool) Decision {
	d := Decision{Channels: map[string]Channel{}}
	p := l.policy
	if p == nil {
		return d
	}
	now = floor.effective(now)
	for name, rules := range p.doc.Channels {
		c := decideChannel(&channelCase{evidence: l.evidence, name: name, rules: rules, now: now, floor: floor, brief: brief})
		if !now.Before(p.Expires()) {
			why := fmt.Sprintf("policy version %d expired on %s", p.Version(), p.Expires().Format(time.RFC3339))
			c = Channel{Reasons: append(c.Reasons, Reason{RuleExpired, p.digest, "", false, why, kindPolicy})}
		}
		c.Level, c.Sandbox = rules.MinimumLevel, rules.MinimumSandbox
		d.Channels[name] = c.complete()
	}
	return d
}

// complete makes every array an array: none is null in JSON.
func (c Channel) complete() Channel {
	list := func(m []Missing) []Missing {
		out := make([]Missing, 0, len(m))
		for _, one := range m {
			one.CouldSupply = append([]string{}, one.CouldSupply...)
			out = append(out, one)
		}
		return out
	}
	c.Missing = list(c.Missing)
	pending := make([]Pending, 0, len(c.Pending))
	for _, one := range c.Pending {
		one.Missing = list(one.Missing)
		pending = append(pending, one)
	}
	c.Pending = pending
	c.Reasons = sortReasons(append([]Reason{}, c.Reasons...))
	return c
}

// channelCase is one channel being decided.
type channelCase struct {
	*evidence
	name  string
	rules ChannelRules
	now   time.Time
	floor Floor
	brief bool // says nothing of what is about other channels and releases

	withdrawn []Withdrawn              // by statements that count, beside those of the floor
	cases     map[caseKey]*releaseCase // of the releases that are published here
	short     []*act                   // publications with too few publishers, the highest epoch first
	reasons   []Reason
}

// A caseKey is a release and how it is to be judged: a rollback may rest on an evaluation of any age.
type caseKey struct {
	release statement.ID
	back    bool
}

func (c *channelCase) say(rule string, a *act, who string, counted bool, format string, args ...any) {
	c.reasons = append(c.reasons, Reason{rule, a.id, who, counted, fmt.Sprintf(format, args...), a.kind})
}

// decideChannel walks the publications from the highest epoch down and takes the first that counts and whose release
// meets the requirements. Those above it that might still come to count are pending and change nothing.
func decideChannel(c *channelCase) Channel {
	c.reasons = c.evidence.reasons()
	c.cases = map[caseKey]*releaseCase{}
	c.judgeWithdrawals()
	out := Channel{Withdrawn: c.withdrawn}
	var lacks *Missing // publishers, of the highest publication that has too few
	publications := c.candidates()
	twins := epochsOf(publications)
	for _, a := range publications {
		if rule, why := c.refusesEpoch(a, twins[a.publication.Epoch] > 1); rule != "" {
			c.refuse(a, rule, why)
			continue
		}
		release := c.open(a.about, a.publication.Rollback)
		if a.publication.Rollback && !slices.Contains(c.floor.Channels[c.name].Served, a.about) {
			c.refuse(a, RuleRollback, fmt.Sprintf("%s never served the release that it goes back to", c.name))
			continue
		}
		publishers := c.publishers(a, release)
		missing := release.missing()
		if out.Serve != "" {
			c.refuse(a, RuleEpochReplay, fmt.Sprintf("epoch %d is superseded by epoch %d", a.publication.Epoch, out.Epoch))
			if len(publishers) >= c.policy.need(*c.publishRule(a)) && !release.withdrawn && !release.blocked(missing) {
				out.Standing = append(out.Standing, a.about)
			}
			continue
		}
		switch {
		case len(publishers) < c.policy.need(*c.publishRule(a)): // publishers said why
			if lacks == nil {
				lacks = c.lacksPublishers(a, release, publishers)
			}
		case release.withdrawn:
			c.refuse(a, RuleWithdrawn, "its release or its weights were withdrawn")
		case release.blocked(missing):
			out.Pending = append(out.Pending, Pending{a.about, a.publication.Epoch, missing, a.id})
			c.refuse(a, missing[0].Rule, fmt.Sprintf("epoch %d is pending: %s", a.publication.Epoch, join(missing)))
		default:
			out.serve(release, a.publication.Epoch, a.id)
			out.By = a.id
			out.Missing = missing // what mode warn let pass
			out.Signers.Publishers = publishers
			for _, who := range publishers {
				out.Counted = append(out.Counted, a.by(who))
				c.say(RuleRole, a, who, true, "published by %s as %s, epoch %d", who, c.publishRule(a).Role, a.publication.Epoch)
			}
		}
	}
	if out.Serve == "" {
		out.Missing = c.missingNow(out.Pending, lacks)
		c.fallBack(&out)
	}
	c.explainRest()
	for _, release := range c.cases {
		c.reasons = append(c.reasons, release.reasons...)
	}
	out.Reasons = c.reasons
	return out
}

// epochsOf returns how many publications have each epoch.
func epochsOf(publications []*act) map[int64]int {
	count := map[int64]int{}
	for _, a := range publications {
		count[a.publication.Epoch]++
	}
	return count
}

// serve makes a release the one that serves.
func (c *Channel) serve(r *releaseCase, epoch int64, publication statement.ID) {
	c.Serve, c.Release, c.Epoch, c.Publication = r.id, r.act.release, epoch, publication
	c.Signers = Signers{Weights: r.weightsSigners(), Producers: r.release.by, Evaluators: r.evaluation.by, Approvers: r.approval.by}
	c.Counted = slices.Clone(r.counted)
}

// open returns the case of a release, which is judged once.
func (c *channelCase) open(release statement.ID, back bool) *releaseCase {
	key := caseKey{release, back}
	if c.cases[key] == nil {
		c.cases[key] = c.openRelease(release, back)
	}
	return c.cases[key]
}

// publishRule is the rule for who signs a publication, nil if nobody may: going back is an act of its own.
func (c *channelCase) publishRule(a *act) *Rule {
	if a.publication.Rollback {
		return c.rules.Rollback
	}
	return &c.rules.Publish
}

// candidates returns the publications on this channel by members of the publishing role, the highest epoch first.
func (c *channelCase) candidates() []*act {
	var found []*act
	for _, a := range c.publications[c.name] {
		rule := c.publishRule(a)
		if rule == nil {
			for _, who := range a.identities() {
				c.say(RuleRole, a, who, false, "the policy lets nobody roll %s back", c.name)
			}
			continue
		}
		members := 0
		for _, who := range a.identities() {
			switch {
			case !c.policy.holds(who, rule.Role):
				c.say(RuleRole, a, who, false, "%s is no %s, so may not %s %s", who, rule.Role, verb(a), c.name)
			case c.retired(a, who) != "":
				c.say(RuleLifecycle, a, who, false, "%s", c.retired(a, who))
			default:
				members++
			}
		}
		switch need := c.policy.need(*rule); {
		case members >= need:
			found = append(found, a)
		case members > 0:
			c.refuse(a, RuleThreshold, fmt.Sprintf("%d of %d required publishers", members, need))
			c.short = append(c.short, a)
		}
	}
	for _, list := range [][]*act{found, c.short} {
		slices.SortFunc(list, func(a, b *act) int {
			return cmp.Or(cmp.Compare(b.publication.Epoch, a.publication.Epoch), cmp.Compare(a.id, b.id))
		})
	}
	return found
}

// verb is what a publication does to a channel.
func verb(a *act) string {
	if a.publication.Rollback {
		return "roll back"
	}
	return "publish on"
}

// refuse says of every publisher who signed a publication why it does not count.
func (c *channelCase) refuse(a *act, rule, why string) {
	for _, who := range a.identities() {
		if c.policy.holds(who, c.publishRule(a).Role) && c.retired(a, who) == "" {
			c.say(rule, a, who, false, "%s", why)
		}
	}
}

// refusesEpoch holds a publication against the floor, its twins and the time. Twins are judged before their expiry and
// before their releases: which of them counts must not change with time, nor with which approvals have arrived.
func (c *channelCase) refusesEpoch(a *act, hasTwin bool) (rule, why string) {
	epoch, floor := a.publication.Epoch, c.floor.Channels[c.name]
	accepted := epoch == floor.Epoch && a.id == floor.Publication
	switch {
	case accepted:
		// never displaced by a twin
	case epoch < floor.Epoch:
		return RuleEpochReplay, fmt.Sprintf("epoch %d is below epoch %d, which %s has accepted", epoch, floor.Epoch, c.name)
	case epoch == floor.Epoch:
		return RuleEpochConflict, fmt.Sprintf("epoch %d of %s was accepted for another publication, %s", epoch, c.name, floor.Publication)
	case epoch > floor.Epoch+MaxEpochJump:
		return RuleEpochJump, fmt.Sprintf("epoch %d is more than %d above epoch %d, which %s has accepted", epoch, MaxEpochJump, floor.Epoch, c.name)
	case hasTwin:
		return RuleEpochConflict, fmt.Sprintf("more than one publication has epoch %d; none of them counts", epoch)
	}
	if expires := a.publication.Expires; !expires.IsZero() && !c.now.Before(expires) {
		return RuleExpired, fmt.Sprintf("the publication of epoch %d expired on %s", epoch, expires.Format(time.RFC3339))
	}
	return "", ""
}

// publishers returns the signers of a publication that count for it: members of the role who did not act earlier in
// another separated role on the same release.
func (c *channelCase) publishers(a *act, release *releaseCase) []string {
	var count []string
	role := c.publishRule(a).Role
	for _, who := range a.identities() {
		if !c.policy.holds(who, role) || c.retired(a, who) != "" {
			continue
		}
		if first, ok := release.acts(who, role); !ok {
			c.say(RuleSeparation, a, who, false, "%s acted as %s on this release, so does not count as %s", who, first, role)
			continue
		}
		if rule, why := c.lapsed(a, who); rule != "" {
			c.say(rule, a, who, false, "%s", why)
			continue
		}
		count = append(count, who)
	}
	return count
}

// lacksPublishers is what a publication lacks that has too few publishers.
func (c *channelCase) lacksPublishers(a *act, release *releaseCase, by []string) *Missing {
	rule := *c.publishRule(a)
	return &Missing{
		Rule: RuleThreshold, Role: rule.Role, Need: c.policy.need(rule), Have: len(by), CouldSupply: release.couldSupply(met{rule, by}), What: "publications",
	}
}

// missingNow is what stands between the channel and serving: what the highest pending publication lacks, or else
// publishers, or a publication.
func (c *channelCase) missingNow(pending []Pending, lacks *Missing) []Missing {
	if len(pending) > 0 {
		return pending[0].Missing
	}
	for _, a := range c.short {
		if rule, _ := c.refusesEpoch(a, false); rule == "" && lacks == nil {
			release := c.open(a.about, a.publication.Rollback)
			lacks = c.lacksPublishers(a, release, c.publishers(a, release))
		}
	}
	if lacks != nil {
		return []Missing{*lacks}
	}
	return []Missing{{
		Rule: RuleThreshold, Role: c.rules.Publish.Role, Need: c.policy.need(c.rules.Publish), CouldSupply: c.policy.activeMembers(c.rules.Publish.Role),
		What: "publications",
	}}
}

// explainRest answers for statements about other channels, and about releases that nothing publishes here.
func (c *channelCase) explainRest() {
	if c.brief {
		return
	}
	for _, a := range c.publications[c.name] { // also of those that do not count: what they are about is judged all the same
		c.open(a.about, a.publication.Rollback)
	}
	used := map[statement.ID]bool{}
	for key, release := range c.cases {
		used[key.release] = true
		if release.act != nil {
			used[release.act.release.weights.ID()] = true
			for _, adapter := range release.act.release.adapters {
				used[adapter.Statement.ID()] = true
			}
		}
	}
	for _, a := range c.acts {
		why := ""
		switch a.kind {
		case kindPublication:
			if a.publication.Channel != c.name {
				why = fmt.Sprintf("publishes on channel %s, not %s", a.publication.Channel, c.name)
			}
		case kindRelease, kindWeights:
			if !used[a.id] {
				why = fmt.Sprintf("no publication on %s is about this release", c.name)
			}
		case kindApproval, kindEvaluation:
			if !used[a.about] {
				why = fmt.Sprintf("no publication on %s is about this release", c.name)
			}
		}
		if why == "" || a.unread != nil {
			continue
		}
		for _, who := range a.identities() {
			c.say(RuleScope, a, who, false, "%s", why)
		}
	}
}

func join(missing []Missing) string {
	texts := make([]string, len(missing))
	for i, m := range missing {
		texts[i] = m.String()
	}
	return strings.Join(texts, "; ")
}
