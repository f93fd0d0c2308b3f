package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

// rootRole is the role whose members sign the next policy.
const rootRole = "root"

// A duty is an act that a channel asks for before something new is served. Two of different kinds check each other, so
// they should not be one person's: those who make, those who judge, and those who publish.
type duty struct {
	key  string
	does string
	kind string
	rule *trust.Rule
}

func duties(c trust.ChannelRules) []duty {
	all := []duty{
		{"require.weights", "sign weights", "makes", c.Require.Weights},
		{"require.release", "release", "makes", &c.Require.Release},
		{"require.evaluation", "evaluate", "judges", c.Require.Evaluation},
		{"require.approval", "approve", "judges", c.Require.Approval},
		{"publish", "publish", "publishes", &c.Publish},
	}
	return slices.DeleteFunc(all, func(d duty) bool { return d.rule == nil })
}

func (l *linter) channel(name string) {
	c, path := l.Channels[name], "channels."+name
	if c.Mode == "warn" {
		l.say("%s.mode: warn serves releases without the evaluations and approvals that the channel asks for; set enforce once they are there", path)
	}
	switch c.MinimumLevel {
	case "measured":
		l.say("%s.minimumLevel: at measured the bytes are checked while they load and no more; ask for sealed if the weights fit in memory", path)
	case "attached":
		l.say("%s.minimumLevel: at attached a runtime's own word for its weights is enough; ask for sealed, or at least measured", path)
	}
	for i, first := range c.Separate {
		for _, second := range c.Separate[i+1:] {
			for _, who := range l.Roles[first].Members {
				if slices.Contains(l.Roles[second].Members, who) {
					l.say("%s.separate: %s is both %s and %s, and counts as one of them only; take it out of one", path, who, first, second)
				}
			}
		}
	}
	for _, d := range append(duties(c), duty{key: "rollback", rule: c.Rollback}, duty{key: "withdraw", rule: c.Withdraw}) {
		if d.rule == nil {
			continue
		}
		if active := l.active(d.rule.Role); len(active) < l.need(*d.rule) {
			l.say("%s.%s: needs %d of role %s, which has %d active members; add members, or nothing can be signed", path, d.key, l.need(*d.rule), d.rule.Role, len(active))
		}
	}
	if e := c.Require.Evaluation; e != nil && e.MaxAge == "" {
		l.say("%s.require.evaluation.maxAge: is not set, so an evaluation counts for ever; set one, such as 90d", path)
	}
	if c.Withdraw == nil {
		l.say("%s.withdraw: nobody may withdraw a release, so only a new policy stops a bad one; name a role", path)
	}
	for _, who := range slices.Sorted(maps.Keys(l.Identities)) {
		if l.Identities[who].State.Active() {
			l.powers(path, c, who)
		}
	}
}

func (l *linter) need(r trust.Rule) int { return max(1, r.Count, l.Roles[r.Role].Threshold) }

// powers reports an identity that could be on both sides of a check, or is all that a new release needs.
func (l *linter) powers(path string, c trust.ChannelRules, who string) {
	var mine []duty
	for _, d := range duties(c) {
		if slices.Contains(l.Roles[d.rule.Role].Members, who) {
			mine = append(mine, d)
		}
	}
	if l.alone(c, mine) {
		l.say("%s: %s alone can change what is served; ask for a second identity, by another role or a higher count, and separate the roles", path, who)
		return
	}
	var does []string
	for _, d := range mine {
		if slices.ContainsFunc(mine, func(other duty) bool { return d.kind != other.kind && !separated(c, d, other) }) {
			does = append(does, d.does)
		}
	}
	if len(does) > 0 {
		last := len(does) - 1
		l.say("%s.separate: %s may %s and %s for one release; give these to different identities, or separate their roles", path, who,
			strings.Join(does[:last], ", "), does[last])
	}
}

// separated reports whether nobody counts for both duties on one release.
func separated(c trust.ChannelRules, a, b duty) bool {
	return a.rule.Role != b.rule.Role && slices.Contains(c.Separate, a.rule.Role) && slices.Contains(c.Separate, b.rule.Role)
}

// alone reports whether the identity with these duties is enough for a new release. Weights that another has signed may be
// used in any release, so whoever signs those need not take part; and mode warn asks for no evaluation and no approval.
func (l *linter) alone(c trust.ChannelRules, mine []duty) bool {
	var acts []duty
	for _, d := range duties(c) {
		if d.key == "require.weights" || d.kind == "judges" && c.Mode == "warn" {
			continue
		}
		has := slices.ContainsFunc(mine, func(m duty) bool { return m.key == d.key })
		apart := slices.ContainsFunc(acts, func(other duty) bool { return separated(c, d, other) })
		if !has || apart || l.need(*d.rule) > 1 {
			return false
		}
		acts = append(acts, d)
	}
	return true
}
