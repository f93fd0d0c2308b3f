package trust_test

import (
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// scopeRows: scope.
var scopeRows = []row{
	{name: "approval for this channel", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.approval(release, "bob", trust.Approval{Channels: []string{"other", "chat"}})
		s.publish(release, 1)
	}, serves: true},
	{name: "approval for another channel", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.approval(release, "bob", trust.Approval{Channels: []string{"other"}})
		s.publish(release, 1)
	}, rule: trust.RuleScope, missing: "approver 1/2 by bob,carol"},
	{name: "approval of another release", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		other := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
		s.approve(release, "alice")
		s.approve(other, "bob")
		s.publish(release, 1)
	}, rule: trust.RuleScope, missing: "approver 1/2 by bob,carol"},
	{name: "publication for another channel", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publication(release, "shipper", trust.Publication{Channel: "other", Epoch: 1})
	}, rule: trust.RuleScope, missing: "publisher 0/1 by shipper"},
	{name: "approval where none is required", policy: func(s *scene) {
		s.chat(func(c *trust.ChannelRules) { c.Require.Approval = nil })
	}, build: func(s *scene) { s.complete() }, serves: true, rule: trust.RuleScope},
}

// expiredRows: expired.
var expiredRows = []row{
	{name: "policy expired", policy: func(s *scene) { s.doc.Expires = now }, build: func(s *scene) { s.complete() }, rule: trust.RuleExpired},
	{name: "policy not yet expired", policy: func(s *scene) { s.doc.Expires = now.Add(time.Second) }, build: func(s *scene) { s.complete() }, serves: true},
	{name: "approval expired", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.approval(release, "bob", trust.Approval{Expires: now})
		s.publish(release, 1)
	}, rule: trust.RuleExpired, missing: "approver 1/2 by bob,carol"},
	{name: "approval not yet expired", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.approval(release, "bob", trust.Approval{Expires: now.Add(time.Second)})
		s.publish(release, 1)
	}, serves: true},
	{name: "publication expired", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publication(release, "shipper", trust.Publication{Channel: "chat", Epoch: 1, Expires: now})
	}, rule: trust.RuleExpired, missing: "publisher 0/1 by shipper"},
	{name: "clock set back", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publication(release, "shipper", trust.Publication{Channel: "chat", Epoch: 1, Expires: now.Add(time.Hour)})
		s.floor.TimeHighWater = now.Add(time.Hour)
	}, rule: trust.RuleExpired, missing: "publisher 0/1 by shipper"},
}

// epochRows: epochs.
var epochRows = []row{
	{name: "epoch at the floor, same publication", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.at(5, s.publish(release, 5))
	}, serves: true},
	{name: "epoch below the floor", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 4)
		s.at(5, "")
	}, rule: trust.RuleEpochReplay, missing: "publisher 0/1 by shipper"},
	{name: "epoch at the floor, another publication", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 5)
		s.at(5, statement.ID("sha256:"+strings.Repeat("0", 64)))
	}, rule: trust.RuleEpochConflict, missing: "publisher 0/1 by shipper"},
	{name: "epoch below the floor, by a floor that names it", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.at(5, s.publish(release, 4))
	}, rule: trust.RuleEpochReplay, missing: "publisher 0/1 by shipper"},
	{name: "two publications of one epoch", build: func(s *scene) {
		release := s.complete()
		s.publication(release, "shipper", trust.Publication{Channel: "chat", Epoch: 1, Expires: now.Add(time.Hour)})
	}, rule: trust.RuleEpochConflict, missing: "publisher 0/1 by shipper"},
	{name: "an expired twin", build: func(s *scene) {
		release := s.complete()
		s.publication(release, "shipper", trust.Publication{Channel: "chat", Epoch: 1, Expires: now})
	}, rule: trust.RuleEpochConflict, missing: "publisher 0/1 by shipper"},
	{name: "a twin by a stranger", build: func(s *scene) {
		release := s.complete()
		s.publication(release, "mallory", trust.Publication{Channel: "chat", Epoch: 1, Expires: now.Add(time.Hour)})
		s.publication(release, "alice", trust.Publication{Channel: "chat", Epoch: 1, Expires: now.Add(time.Hour)})
	}, serves: true, rule: trust.RuleUnknownIdentity},
	{name: "a twin of the accepted one", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.at(1, s.publish(release, 1))
		s.publication(release, "shipper", trust.Publication{Channel: "chat", Epoch: 1, Expires: now.Add(time.Hour)})
	}, serves: true, rule: trust.RuleEpochConflict},
	{name: "epoch 1000 above the floor", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 1005)
		s.at(5, "")
	}, serves: true},
	{name: "epoch 1001 above the floor", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 1006)
		s.at(5, "")
	}, rule: trust.RuleEpochJump, missing: "publisher 0/1 by shipper"},
}

// lifecycleRows: lifecycle.
var lifecycleRows = []row{
	{name: "retired approver", policy: func(s *scene) {
		s.doc.Identities["bob"] = trust.Identity{Keys: []string{s.PublicPEM("bob")}, State: trust.State{Retired: now.Add(-time.Hour)}}
	}, build: func(s *scene) { s.complete() }, rule: trust.RuleLifecycle, missing: "approver 1/2 by carol"},
	{name: "compromised producer", policy: func(s *scene) {
		s.doc.Identities["trainer"] = trust.Identity{Keys: []string{s.PublicPEM("trainer")}, State: trust.State{Compromised: now}}
	}, build: func(s *scene) { s.complete() }, rule: trust.RuleLifecycle, missing: "producer 0/1 by "},
}

// unknownRows: unknown-field, unknown-predicate.
var unknownRows = []row{
	{name: "approval with a field we don't know", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.raw("bob", trust.ApprovalType, release.Hex(), `{"unless":"monday"}`)
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "approver 1/2 by bob,carol"},
	{name: "publication with a canary share", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.raw("shipper", trust.PublicationType, release.Hex(), `{"canary":10,"channel":"chat","epoch":1}`)
	}, rule: trust.RuleUnknownField, missing: "publisher 0/1 by shipper"},
	{name: "release with a field we don't know", build: func(s *scene) {
		d := s.descriptorJSON()
		release := s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(d, `"model":`, `"guardrails":{"level":"high"},"model":`, 1))
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "release with tools", build: func(s *scene) {
		release := s.raw("trainer", trust.ReleaseType, s.root(), s.toolsOfOllama())
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "release with an adapter", build: func(s *scene) {
		release := s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(s.descriptorJSON(), `"adapters":[]`, `"adapters":[{}]`, 1))
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "release for another runtime", build: func(s *scene) {
		release := s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(s.descriptorJSON(), `"llamacpp"`, `"vllm"`, 1))
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "release with an argument that names a file", build: func(s *scene) {
		release := s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(s.descriptorJSON(), `"args":{}`, `"args":{"lora":"x.gguf"}`, 1))
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "release with an argument out of range", build: func(s *scene) {
		release := s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(s.descriptorJSON(), `"args":{}`, `"args":{"threads":"0"}`, 1))
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "approval that is not canonical", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, _ := trust.NewApproval(release, trust.Approval{})
		s.signed("bob", []byte(strings.Replace(string(payload), `{"_type"`, `{ "_type"`, 1)), nil)
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "approver 1/2 by bob,carol"},
	{name: "a kind of statement we don't know", build: func(s *scene) {
		release := s.complete()
		s.raw("carol", "urn:weighbridge:guardrail:v1", release.Hex(), `{"reason":"x"}`)
	}, serves: true, rule: trust.RuleUnknownPredicate},
	{name: "a policy among the statements", build: func(s *scene) {
		s.complete()
		payload, err := trust.NewPolicy(s.doc)
		s.signed("alice", payload, err)
	}, serves: true, rule: trust.RuleUnknownPredicate},
}

// withdrawnRows: withdrawn.
var withdrawnRows = []row{
	{name: "release withdrawn", build: func(s *scene) {
		s.floor.Withdrawn = []trust.Withdrawn{{Release: s.complete()}}
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "weights withdrawn", build: func(s *scene) {
		s.complete()
		s.floor.Withdrawn = []trust.Withdrawn{{Weights: "sha256:" + s.root()}}
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
}

// modeRows: modes, levels and what this version can't do yet.
var modeRows = []row{
	{name: "evaluation required", policy: func(s *scene) {
		s.doc.Roles["evaluator"] = trust.Role{Members: []string{"carol"}}
		s.chat(func(c *trust.ChannelRules) {
			c.Require.Evaluation = &trust.Rule{Role: "evaluator", MaxAge: "90d"}
		})
	}, build: func(s *scene) { s.complete() }, rule: trust.RuleThreshold, missing: "evaluator 0/1 by carol"},
	{name: "mode warn", policy: func(s *scene) {
		s.doc.Roles["evaluator"] = trust.Role{Members: []string{"carol"}}
		s.chat(func(c *trust.ChannelRules) {
			c.Mode = "warn"
			c.Require.Evaluation = &trust.Rule{Role: "evaluator", MaxAge: "90d"}
		})
	}, build: func(s *scene) {
		s.publish(s.releaseBy("trainer", nil), 1)
	}, serves: true, missing: "evaluator 0/1 by carol"},
	{name: "mode warn relaxes no release", policy: func(s *scene) {
		s.chat(func(c *trust.ChannelRules) { c.Mode = "warn" })
	}, build: func(s *scene) {
		s.publish(s.releaseBy("mallory", nil), 1)
	}, rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
	{name: "mode warn relaxes no weights", policy: func(s *scene) {
		s.chat(func(c *trust.ChannelRules) { c.Mode = "warn" })
	}, build: func(s *scene) {
		s.SignModelAs("mallory", s.model)
		s.publish(s.releaseBy("trainer", nil), 1)
	}, rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
	{name: "mode warn relaxes no field", policy: func(s *scene) {
		s.chat(func(c *trust.ChannelRules) { c.Mode = "warn" })
	}, build: func(s *scene) {
		s.publish(s.raw("trainer", trust.ReleaseType, s.root(), s.toolsOfOllama()), 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "a weaker minimum level", policy: func(s *scene) {
		s.chat(func(c *trust.ChannelRules) { c.MinimumLevel = "measured" })
	}, build: func(s *scene) { s.complete() }, serves: true},
}
