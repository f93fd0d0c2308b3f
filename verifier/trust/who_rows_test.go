package trust_test

import (
	"strings"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

// completeRows: all there, or one thing not there.
var completeRows = []row{
	{name: "complete", build: func(s *scene) { s.complete() }, serves: true},
	{name: "nothing", build: func(s *scene) {}, missing: "publisher 0/1 by shipper"},
	{name: "no publication", build: func(s *scene) {
		s.approve(s.releaseBy("trainer", nil), "alice", "bob")
	}, rule: trust.RuleScope, missing: "publisher 0/1 by shipper"},
	{name: "release not there", build: func(s *scene) {
		other := newScene(s.t, nil)
		release := other.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "producer 0/1 by trainer"},
	{name: "publication of an approval", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publish(s.approval(release, "bob", trust.Approval{Ticket: "OPS-1"}), 1)
	}, rule: trust.RuleThreshold, missing: "producer 0/1 by trainer"},
}

// signatureRows: signature, unknown-identity.
var signatureRows = []row{
	{name: "altered approval", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, _ := trust.NewApproval(release, trust.Approval{})
		s.add(forge(s.t, s.Sign("bob", []byte(strings.Replace(string(payload), release.Hex(), strings.Repeat("0", 64), 1))), payload))
		s.publish(release, 1)
	}, rule: trust.RuleSignature, missing: "approver 1/2 by bob,carol"},
	{name: "approval by a stranger", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "mallory")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by bob,carol"},
	{name: "release by a stranger", build: func(s *scene) {
		release := s.releaseBy("mallory", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
	{name: "publication by a stranger", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publication(release, "mallory", trust.Publication{Channel: "chat", Epoch: 1})
	}, rule: trust.RuleUnknownIdentity, missing: "publisher 0/1 by shipper"},
	{name: "approval under a certificate", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.underCertificate("bob", nil, payload, err)
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by bob,carol"},
	{name: "weights by a stranger", build: func(s *scene) {
		s.SignModelAs("mallory", s.model)
		s.complete()
	}, rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
}

// roleRows: role.
var roleRows = []row{
	{name: "approval by the publisher", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "shipper")
		s.publish(release, 1)
	}, rule: trust.RuleRole, missing: "approver 1/2 by bob,carol"},
	{name: "release by an approver", build: func(s *scene) {
		release := s.releaseBy("carol", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleRole, missing: "producer 0/1 by trainer"},
	{name: "publication by an approver", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publication(release, "carol", trust.Publication{Channel: "chat", Epoch: 1})
	}, rule: trust.RuleRole, missing: "publisher 0/1 by shipper"},
	{name: "weights by an approver", build: func(s *scene) {
		s.SignModelAs("carol", s.model)
		s.complete()
	}, rule: trust.RuleRole, missing: "producer 0/1 by trainer"},
	{name: "weights by a role of their own", policy: func(s *scene) {
		s.doc.Identities["lab"] = trust.Identity{Keys: []string{s.PublicPEM("lab")}}
		s.doc.Roles["lab"] = trust.Role{Members: []string{"lab"}}
		s.chat(func(c *trust.ChannelRules) { c.Require.Weights = &trust.Rule{Role: "lab"} })
	}, build: func(s *scene) { s.complete() }, rule: trust.RuleRole, missing: "lab 0/1 by lab"},
}

// thresholdRows: threshold.
var thresholdRows = []row{
	{name: "one approval", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "approver 1/2 by bob,carol"},
	{name: "one identity approves with two keys", policy: func(s *scene) {
		s.doc.Identities["alice"] = trust.Identity{Keys: []string{s.PublicPEM("alice"), s.PublicPEM("alice2")}}
	}, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "alice2")
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "approver 1/2 by bob,carol"},
	{name: "one identity approves twice", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.approval(release, "alice", trust.Approval{Ticket: "OPS-1"})
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "approver 1/2 by bob,carol"},
	{name: "two bundles of one approval", build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "alice") // ECDSA: another signature each time
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "approver 1/2 by bob,carol"},
	{name: "threshold of the role", policy: func(s *scene) {
		s.doc.Roles["approver"] = trust.Role{Members: []string{"alice", "bob", "carol"}, Threshold: 3}
	}, build: func(s *scene) { s.complete() }, rule: trust.RuleThreshold, missing: "approver 2/3 by carol"},
	{name: "one of two publishers", policy: func(s *scene) {
		s.doc.Identities["dock"] = trust.Identity{Keys: []string{s.PublicPEM("dock")}}
		s.doc.Roles["publisher"] = trust.Role{Members: []string{"shipper", "dock"}}
		s.chat(func(c *trust.ChannelRules) { c.Publish.Count = 2 })
	}, build: func(s *scene) { s.complete() }, rule: trust.RuleThreshold, missing: "publisher 1/2 by dock"},
	{name: "one of two publishers approved before", policy: func(s *scene) {
		s.doc.Roles["publisher"] = trust.Role{Members: []string{"shipper", "alice"}, Threshold: 2}
	}, build: func(s *scene) {
		release := s.complete()
		s.publication(release, "alice", trust.Publication{Channel: "chat", Epoch: 1})
	}, rule: trust.RuleSeparation, missing: "publisher 1/2 by "},
	{name: "two of two publishers", policy: func(s *scene) {
		s.doc.Identities["dock"] = trust.Identity{Keys: []string{s.PublicPEM("dock")}}
		s.doc.Roles["publisher"] = trust.Role{Members: []string{"shipper", "dock"}}
		s.chat(func(c *trust.ChannelRules) { c.Publish.Count = 2 })
	}, build: func(s *scene) {
		release := s.complete()
		s.publication(release, "dock", trust.Publication{Channel: "chat", Epoch: 1})
	}, serves: true},
}

// separationRows: separation.
var separationRows = []row{
	{name: "producer approves", policy: func(s *scene) { s.join("approver", "trainer") }, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "trainer")
		s.publish(release, 1)
	}, rule: trust.RuleSeparation, missing: "approver 1/2 by bob,carol"},
	{name: "producer publishes", policy: func(s *scene) { s.join("publisher", "trainer") }, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publication(release, "trainer", trust.Publication{Channel: "chat", Epoch: 1})
	}, rule: trust.RuleSeparation, missing: "publisher 0/1 by shipper"},
	{name: "approver publishes", policy: func(s *scene) { s.join("publisher", "alice") }, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publication(release, "alice", trust.Publication{Channel: "chat", Epoch: 1})
	}, rule: trust.RuleSeparation, missing: "publisher 0/1 by shipper"},
	{name: "who approved for another channel publishes", policy: func(s *scene) { s.join("publisher", "carol") }, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.approval(release, "carol", trust.Approval{Channels: []string{"other"}})
		s.publication(release, "carol", trust.Publication{Channel: "chat", Epoch: 1})
	}, rule: trust.RuleSeparation, missing: "publisher 0/1 by shipper"},
	{name: "who signed the weights approves", policy: func(s *scene) {
		s.doc.Roles["lab"] = trust.Role{Members: []string{"carol"}}
		s.chat(func(c *trust.ChannelRules) {
			c.Require.Weights = &trust.Rule{Role: "lab"}
			c.Separate = append(c.Separate, "lab")
		})
	}, build: func(s *scene) {
		s.SignModelAs("carol", s.model)
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "carol")
		s.publish(release, 1)
	}, rule: trust.RuleSeparation, missing: "approver 1/2 by bob"},
	{name: "who published could not approve", policy: func(s *scene) { s.join("approver", "shipper") }, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "approver 1/2 by bob,carol"},
	{name: "producer approves where nothing is separate", policy: func(s *scene) {
		s.join("approver", "trainer")
		s.chat(func(c *trust.ChannelRules) { c.Separate = nil })
	}, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "trainer")
		s.publish(release, 1)
	}, serves: true},
}
