package trust_test

import (
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// duties adds an evaluator (tester), an operator (night) and a revoker (warden) to the policy, and rules for them.
func duties(s *scene) {
	for role, name := range map[string]string{"evaluator": "tester", "operator": "night", "revoker": "warden"} {
		s.doc.Identities[name] = trust.Identity{Keys: []string{s.PublicPEM(name)}}
		s.doc.Roles[role] = trust.Role{Members: []string{name}}
	}
	s.chat(func(c *trust.ChannelRules) {
		c.Require.Evaluation = &trust.Rule{Role: "evaluator", MaxAge: "90d"}
		c.Rollback, c.Withdraw = &trust.Rule{Role: "operator"}, &trust.Rule{Role: "revoker"}
	})
}

// and joins edits of a policy.
func and(edits ...func(*scene)) func(*scene) {
	return func(s *scene) {
		for _, edit := range edits {
			edit(s)
		}
	}
}

func rules(edit func(*trust.ChannelRules)) func(*scene) {
	return func(s *scene) { s.chat(edit) }
}

// retire makes an identity retired.
func retire(name string) func(*scene) {
	return func(s *scene) {
		identity := s.doc.Identities[name]
		identity.State = trust.State{Retired: now.Add(-time.Hour)}
		s.doc.Identities[name] = identity
	}
}

const day = 24 * time.Hour

// evaluated is how long ago, in a row, a release passed or failed.
func (s *scene) evaluated(release statement.ID, name, result string, ago time.Duration) statement.ID {
	return s.evaluation(release, name, trust.Evaluation{Result: result, FinishedOn: s.now.Add(-ago)})
}

func (s *scene) evaluation(release statement.ID, name string, e trust.Evaluation) statement.ID {
	s.t.Helper()
	payload, err := trust.NewEvaluation(release, e)
	return s.signed(name, payload, err)
}

func (s *scene) withdrawal(target statement.ID, name, of string) statement.ID {
	s.t.Helper()
	payload, err := trust.NewWithdrawal(target, trust.Withdrawal{Of: of, Reason: "it leaks"})
	return s.signed(name, payload, err)
}

func (s *scene) rollback(release statement.ID, name string, epoch int64) statement.ID {
	s.t.Helper()
	return s.publication(release, name, trust.Publication{Channel: "chat", Epoch: epoch, Rollback: true, Reason: "it rambles"})
}

// accept makes what is decided now the floor's, as a gateway that serves it does.
func (s *scene) accept() {
	s.t.Helper()
	c := s.decide()
	if c.Serve == "" {
		s.t.Fatalf("nothing to accept; reasons:\n%s", reasons(c))
	}
	s.floor = s.floor.Accept("chat", c, s.policy, s.now)
}

// version is a complete release of its own version, evaluated a day ago and published.
func (s *scene) version(v string, epoch int64) statement.ID {
	s.t.Helper()
	release := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = v })
	s.evaluated(release, "tester", trust.Passed, day)
	s.approve(release, "alice", "bob")
	s.publish(release, epoch)
	return release
}

// twoServed are two releases that the channel has served; the second does.
func (s *scene) twoServed() (first, second statement.ID) {
	s.t.Helper()
	first = s.version("1", 1)
	s.accept()
	second = s.version("2", 2)
	s.accept()
	return first, second
}

// evaluationRows: max-age, test-failed.
var evaluationRows = []row{
	{name: "evaluated", policy: duties, build: func(s *scene) { s.version("1", 1) }, serves: true},
	{name: "not evaluated", policy: duties, build: func(s *scene) { s.complete() }, rule: trust.RuleThreshold, missing: "evaluator 0/1 by tester"},
	{name: "evaluated 90 days ago", policy: duties, build: func(s *scene) {
		s.evaluated(s.complete(), "tester", trust.Passed, 90*day)
	}, rule: trust.RuleMaxAge, missing: "evaluator 0/1 by tester"},
	{name: "evaluated just within 90 days", policy: duties, build: func(s *scene) {
		s.evaluated(s.complete(), "tester", trust.Passed, 90*day-time.Second)
	}, serves: true},
	{name: "evaluated in five minutes", policy: duties, build: func(s *scene) {
		s.evaluated(s.complete(), "tester", trust.Passed, -5*time.Minute)
	}, serves: true},
	{name: "evaluated later than that", policy: duties, build: func(s *scene) {
		s.evaluated(s.complete(), "tester", trust.Passed, -5*time.Minute-time.Second)
	}, rule: trust.RuleMaxAge, missing: "evaluator 0/1 by tester"},
	{name: "failed", policy: duties, build: func(s *scene) {
		s.evaluated(s.complete(), "tester", trust.Failed, day)
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
	{name: "passed with warnings", policy: duties, build: func(s *scene) {
		s.evaluated(s.complete(), "tester", trust.Warned, day)
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
	{name: "failed after it passed", policy: duties, build: func(s *scene) {
		s.evaluated(s.version("1", 1), "tester", trust.Failed, time.Hour)
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
	{name: "failed as it passed", policy: duties, build: func(s *scene) {
		s.evaluated(s.version("1", 1), "tester", trust.Failed, day)
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
	{name: "passed after it failed", policy: duties, build: func(s *scene) {
		s.evaluated(s.version("1", 1), "tester", trust.Failed, 2*day)
	}, serves: true, rule: trust.RuleTestFailed},
	{name: "failed by someone who may not say so", policy: duties, build: func(s *scene) {
		s.evaluated(s.version("1", 1), "carol", trust.Failed, time.Hour)
	}, serves: true, rule: trust.RuleRole},
	{name: "failed in the future", policy: duties, build: func(s *scene) {
		s.evaluated(s.version("1", 1), "tester", trust.Failed, -day)
	}, serves: true, rule: trust.RuleMaxAge},
	{name: "evaluated by an approver", policy: duties, build: func(s *scene) {
		s.evaluated(s.complete(), "carol", trust.Passed, day)
	}, rule: trust.RuleRole, missing: "evaluator 0/1 by tester"},
	{name: "the evaluator approves", policy: and(duties, func(s *scene) { s.join("approver", "tester") }, rules(func(c *trust.ChannelRules) {
		c.Separate = append(c.Separate, "evaluator")
	})), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.evaluated(release, "tester", trust.Passed, day)
		s.approve(release, "alice", "tester")
		s.publish(release, 1)
	}, rule: trust.RuleSeparation, missing: "approver 1/2 by bob,carol"},
	{name: "a required test passed", policy: and(duties, rules(func(c *trust.ChannelRules) { c.Require.Evaluation.Tests = []string{"safety"} })), build: func(s *scene) {
		s.evaluation(s.complete(), "tester", trust.Evaluation{Result: trust.Passed, FinishedOn: now, PassedTests: []string{"safety", "bias"}})
	}, serves: true},
	{name: "a required test is not named", policy: and(duties, rules(func(c *trust.ChannelRules) { c.Require.Evaluation.Tests = []string{"safety"} })), build: func(s *scene) {
		s.evaluation(s.complete(), "tester", trust.Evaluation{Result: trust.Passed, FinishedOn: now, PassedTests: []string{"bias"}})
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
	{name: "a required test passed and failed", policy: and(duties, rules(func(c *trust.ChannelRules) { c.Require.Evaluation.Tests = []string{"safety"} })), build: func(s *scene) {
		s.evaluation(s.complete(), "tester", trust.Evaluation{Result: trust.Passed, FinishedOn: now, PassedTests: []string{"safety"}, FailedTests: []string{"safety"}})
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
	{name: "an evaluation where none is required", policy: and(duties, rules(func(c *trust.ChannelRules) { c.Require.Evaluation = nil })), build: func(s *scene) {
		s.version("1", 1)
	}, serves: true, rule: trust.RuleScope},
}

// rollbackRows: rollback-unserved, and who may roll back.
var rollbackRows = []row{
	{name: "rolled back", policy: duties, build: func(s *scene) {
		first, _ := s.twoServed()
		s.rollback(first, "night", 3)
	}, serves: true, rule: trust.RuleEpochReplay},
	{name: "rolled back on an evaluation that is too old by now", policy: duties, build: func(s *scene) {
		first, _ := s.twoServed()
		s.now = s.now.Add(100 * day)
		s.rollback(first, "night", 3)
	}, serves: true, rule: trust.RuleMaxAge},
	{name: "rolled back to what failed since", policy: duties, build: func(s *scene) {
		first, second := s.twoServed()
		s.evaluated(first, "tester", trust.Failed, 0)
		s.withdrawal(second, "warden", trust.OfRelease)
		s.rollback(first, "night", 3)
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
	{name: "rolled back by the publisher", policy: duties, build: func(s *scene) {
		s.version("1", 1)
		s.accept()
		s.floor.Channels["chat"] = trust.ChannelFloor{Epoch: 2, Served: s.floor.Channels["chat"].Served}
		s.rollback(s.floor.Channels["chat"].Served[0], "shipper", 3)
	}, rule: trust.RuleRole, missing: "publisher 0/1 by shipper"},
	{name: "published by the operator", policy: duties, build: func(s *scene) {
		release := s.version("1", 1)
		s.set = s.set[:len(s.set)-1]
		s.publication(release, "night", trust.Publication{Channel: "chat", Epoch: 1})
	}, rule: trust.RuleRole, missing: "publisher 0/1 by shipper"},
	{name: "rolled back to what never served", policy: duties, build: func(s *scene) {
		release := s.version("1", 1)
		s.set = s.set[:len(s.set)-1]
		s.rollback(release, "night", 1)
	}, rule: trust.RuleRollback, missing: "publisher 0/1 by shipper"},
	{name: "rolled back where nobody may", policy: and(duties, rules(func(c *trust.ChannelRules) { c.Rollback = nil })), build: func(s *scene) {
		release := s.version("1", 1)
		s.set = s.set[:len(s.set)-1]
		s.rollback(release, "night", 1)
	}, rule: trust.RuleRole, missing: "publisher 0/1 by shipper"},
	{name: "rolled back by who approved it", policy: and(duties, func(s *scene) { s.join("operator", "alice") }, rules(func(c *trust.ChannelRules) {
		c.Separate = append(c.Separate, "operator")
	})), build: func(s *scene) {
		first, second := s.twoServed()
		s.withdrawal(second, "warden", trust.OfRelease)
		s.rollback(first, "alice", 3)
	}, rule: trust.RuleSeparation, missing: "operator 0/1 by night"},
	{name: "rolled back to what was withdrawn", policy: duties, build: func(s *scene) {
		first, second := s.twoServed()
		s.withdrawal(first, "warden", trust.OfRelease)
		s.withdrawal(second, "warden", trust.OfRelease)
		s.rollback(first, "night", 3)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
}

// withdrawalRows: withdrawn, by statement.
var withdrawalRows = []row{
	{name: "release withdrawn by statement", policy: duties, build: func(s *scene) {
		s.withdrawal(s.version("1", 1), "warden", trust.OfRelease)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "weights withdrawn by statement", policy: duties, build: func(s *scene) {
		s.version("1", 1)
		s.withdrawal(statement.ID("sha256:"+s.root()), "warden", trust.OfWeights)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "release withdrawn as if it were weights", policy: duties, build: func(s *scene) {
		s.withdrawal(s.version("1", 1), "warden", trust.OfWeights)
	}, serves: true},
	{name: "withdrawn and published again", policy: duties, build: func(s *scene) {
		release := s.version("1", 1)
		s.accept()
		s.withdrawal(release, "warden", trust.OfRelease)
		s.publish(release, 2)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "withdrawn by the publisher", policy: duties, build: func(s *scene) {
		s.withdrawal(s.version("1", 1), "shipper", trust.OfRelease)
	}, serves: true, rule: trust.RuleRole},
	{name: "withdrawn where nobody may", policy: and(duties, rules(func(c *trust.ChannelRules) { c.Withdraw = nil })), build: func(s *scene) {
		s.withdrawal(s.version("1", 1), "warden", trust.OfRelease)
	}, serves: true, rule: trust.RuleRole},
	{name: "withdrawn by one of two", policy: and(duties, func(s *scene) { s.join("revoker", "carol") }, rules(func(c *trust.ChannelRules) { c.Withdraw.Count = 2 })), build: func(s *scene) {
		release := s.version("1", 1)
		s.withdrawal(release, "warden", trust.OfRelease)
		payload, err := trust.NewWithdrawal(release, trust.Withdrawal{Of: trust.OfRelease, Reason: "again"})
		s.signed("warden", payload, err)
	}, serves: true, rule: trust.RuleThreshold},
	{name: "withdrawn by two of two", policy: and(duties, func(s *scene) { s.join("revoker", "carol") }, rules(func(c *trust.ChannelRules) { c.Withdraw.Count = 2 })), build: func(s *scene) {
		release := s.version("1", 1)
		s.withdrawal(release, "warden", trust.OfRelease)
		payload, err := trust.NewWithdrawal(release, trust.Withdrawal{Of: trust.OfRelease, Reason: "I agree"})
		s.signed("carol", payload, err)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "withdrawn by who has retired", policy: and(duties, retire("warden")), build: func(s *scene) {
		s.withdrawal(s.version("1", 1), "warden", trust.OfRelease)
	}, serves: true, rule: trust.RuleLifecycle},
	{name: "withdrawn on another channel", policy: duties, build: func(s *scene) {
		s.floor.Withdrawn = []trust.Withdrawn{{Channel: "other", Release: s.version("1", 1)}}
	}, serves: true},
	{name: "withdrawn on this channel, by the floor", policy: duties, build: func(s *scene) {
		s.floor.Withdrawn = []trust.Withdrawn{{Channel: "chat", Release: s.version("1", 1)}}
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "an older release instead of a withdrawn one", policy: and(duties, rules(func(c *trust.ChannelRules) { c.OnWithdrawal = "previous" })), build: func(s *scene) {
		_, second := s.twoServed()
		s.withdrawal(second, "warden", trust.OfRelease)
	}, serves: true, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "nothing older instead of withdrawn weights", policy: and(duties, rules(func(c *trust.ChannelRules) { c.OnWithdrawal = "previous" })), build: func(s *scene) {
		s.twoServed() // of the same weights
		s.withdrawal(statement.ID("sha256:"+s.root()), "warden", trust.OfWeights)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
}
