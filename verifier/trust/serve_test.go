package trust_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestDecidePending: a newer publication that lacks something is shown, and what serves goes on serving.
func TestDecidePending(t *testing.T) {
	s := newScene(t, nil)
	first := s.complete()
	second := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
	s.publish(second, 2)
	s.approve(second, "carol")

	got := s.decide()
	if got.Serve != first || got.Epoch != 1 {
		t.Fatalf("serves %s at epoch %d, want %s at 1", got.Serve, got.Epoch, first)
	}
	if len(got.Missing) != 0 {
		t.Errorf("missing %v for what serves, want none", got.Missing)
	}
	if len(got.Pending) != 1 || got.Pending[0].Release != second || got.Pending[0].Epoch != 2 {
		t.Fatalf("pending %+v, want the second release at epoch 2", got.Pending)
	}
	if got := describe(got.Pending[0].Missing[0]); got != "approver 1/2 by alice,bob" {
		t.Errorf("pending for %q", got)
	}

	// Pending ones don't raise the floor; the missing approval makes it serve.
	s.floor = s.floor.Accept("chat", got, s.policy, s.now)
	if epoch := s.floor.Channels["chat"].Epoch; epoch != 1 {
		t.Errorf("floor at epoch %d, want 1", epoch)
	}
	s.approve(second, "alice")
	got = s.decide()
	if got.Serve != second || len(got.Pending) != 0 {
		t.Fatalf("serves %s, want the second release %s", got.Serve, second)
	}
	if !slices.ContainsFunc(got.Reasons, func(r trust.Reason) bool {
		return r.Rule == trust.RuleEpochReplay && strings.Contains(r.Why, "superseded")
	}) {
		t.Errorf("no reason says that epoch 1 is superseded:\n%s", reasons(got))
	}
	want := trust.Signers{Weights: []string{"trainer"}, Producers: []string{"trainer"}, Approvers: []string{"alice", "carol"}, Publishers: []string{"shipper"}}
	if marshal(t, got.Signers) != marshal(t, want) {
		t.Errorf("signers %+v, want %+v", got.Signers, want)
	}
}

// TestDecideStanding: a release that serves may go on until its successor has replaced it, but only for as long as it
// would count without the successor.
func TestDecideStanding(t *testing.T) {
	soon := now.Add(time.Minute)
	later := func(s *scene) { s.now = soon }
	tests := []struct {
		name        string
		approval    trust.Approval
		publication trust.Publication
		then        func(s *scene)
		want        bool
	}{
		{name: "all counts still", then: later, want: true},
		{name: "approval expired", approval: trust.Approval{Expires: soon}, then: later},
		{name: "publication expired", publication: trust.Publication{Expires: soon}, then: later},
		{name: "withdrawn", then: func(s *scene) { s.floor.Withdrawn = []trust.Withdrawn{{Release: s.decide().Standing[0]}} }},
		{name: "replaced", then: func(s *scene) { s.floor = s.floor.Accept("chat", s.decide(), s.policy, s.now) }},
		{name: "policy expired", then: func(s *scene) { s.now = trusttest.Expires }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, nil)
			old := s.releaseBy("trainer", nil)
			s.approve(old, "alice")
			s.approval(old, "bob", tt.approval)
			tt.publication.Channel, tt.publication.Epoch = "chat", 1
			s.publication(old, trusttest.Shipper, tt.publication)
			next := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
			s.approve(next, "alice", "bob")
			s.publish(next, 2)

			tt.then(s)
			got := s.decide()
			if got.Allows(old) != tt.want {
				t.Errorf("Allows(the old release) = %v, want %v; standing %v", !tt.want, tt.want, got.Standing)
			}
			if got.Allows(next) != (got.Serve == next) || got.Allows("") {
				t.Errorf("Allows(what is decided) = %v, Allows(nothing) = %v", got.Allows(next), got.Allows(""))
			}
		})
	}
}

// TestDecideUnwanted: what a stranger adds changes nothing that serves.
func TestDecideUnwanted(t *testing.T) {
	s := newScene(t, nil)
	release := s.complete()
	before := s.decide()
	stranger := s.releaseBy("mallory", func(d *trust.Descriptor) { d.Version = "evil" })
	s.approve(stranger, "mallory")
	s.publication(stranger, "mallory", trust.Publication{Channel: "chat", Epoch: 2})
	s.approve(release, "mallory")
	s.add(forge(t, s.Sign("shipper", s.set[0].Payload()), s.set[len(s.set)-1].Payload()))
	after := s.decide()
	if after.Serve != before.Serve || after.Epoch != before.Epoch || after.Publication != before.Publication || len(after.Pending) != 0 {
		t.Errorf("serves %s at %d, want %s at %d; pending %v", after.Serve, after.Epoch, before.Serve, before.Epoch, after.Pending)
	}
}

// TestDecideWithholding: the fewer statements arrive the less is served, never something else.
func TestDecideWithholding(t *testing.T) {
	s := newScene(t, nil)
	release := s.complete()
	for i := range s.set {
		less := slices.Delete(slices.Clone(s.set), i, i+1)
		if c := trust.Decide(s.policy, less, s.now, s.floor).Channels["chat"]; c.Serve != "" {
			t.Errorf("serves %s without statement %d (%s); the release is %s", c.Serve, i, s.set[i].PredicateType(), release)
		}
	}
}

func TestDecideNoPolicy(t *testing.T) {
	s := newScene(t, nil)
	s.complete()
	if d := trust.Decide(nil, s.set, s.now, s.floor); len(d.Channels) != 0 {
		t.Errorf("a nil policy decides for %v", d.Channels)
	}
}

// TestDecideHints: a bundle names its key in several spellings or not at all, and each finds the key.
func TestDecideHints(t *testing.T) {
	for _, hint := range []string{"", "0000"} {
		s := newScene(t, nil)
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, err := trust.NewApproval(release, trust.Approval{})
		if err != nil {
			t.Fatal(err)
		}
		s.add(rehint(t, s.Sign("bob", payload), hint))
		s.publish(release, 1)
		if serves := s.decide().Serve != ""; serves != (hint == "") {
			t.Errorf("hint %q: serves = %v", hint, serves)
		}
	}
}

func TestFloorAccept(t *testing.T) {
	s := newScene(t, nil)
	first := s.complete()
	c1 := s.decide()
	var zero trust.Floor
	f1 := zero.Accept("chat", c1, s.policy, s.now)
	checkFloor(t, f1, s, 1, c1.Publication, first)
	if len(zero.Channels) != 0 {
		t.Errorf("Accept changed the floor it was given: %+v", zero)
	}

	second := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
	s.approve(second, "alice", "bob")
	s.publish(second, 2)
	s.floor = f1
	c2 := s.decide()
	f2 := f1.Accept("chat", c2, s.policy, s.now)
	checkFloor(t, f2, s, 2, c2.Publication, first, second)
	checkFloor(t, f1, s, 1, c1.Publication, first)

	for name, c := range map[string]trust.Channel{"nothing": {}, "an older decision": c1, "the same": c2} {
		checkFloor(t, f2.Accept("chat", c, s.policy, s.now), s, 2, c2.Publication, first, second)
		_ = name
	}
	if f := f2.Accept("chat", c2, s.policy, s.now.Add(-time.Hour)); !f.TimeHighWater.Equal(s.now) {
		t.Errorf("time high-water went back to %v", f.TimeHighWater)
	}
	if f := f2.Accept("chat", c2, s.policy, s.now.Add(time.Hour)); !f.TimeHighWater.Equal(s.now.Add(time.Hour)) {
		t.Errorf("time high-water stayed at %v", f.TimeHighWater)
	}
	// Served a third time, a release is remembered once, as the newest.
	s.publish(first, 3)
	s.floor = f2
	c3 := s.decide()
	checkFloor(t, f2.Accept("chat", c3, s.policy, s.now), s, 3, c3.Publication, second, first)
}

// TestFloorAcceptKeepsItsPast: a floor is a value, so one that was made from another shares nothing with it, and it
// forgets only what is oldest.
func TestFloorAcceptKeepsItsPast(t *testing.T) {
	s := newScene(t, nil)
	if f := (trust.Floor{}).Accept("chat", trust.Channel{}, s.policy, s.now); len(f.Channels) != 0 {
		t.Errorf("serving nothing left %+v", f.Channels)
	}
	id := func(n int) statement.ID { return statement.ID(fmt.Sprintf("sha256:%064x", n)) }
	var f trust.Floor
	for n := range 5000 {
		f = f.Accept("chat", trust.Channel{Serve: id(n), Epoch: int64(n + 1)}, s.policy, s.now)
	}
	if served := f.Channels["chat"].Served; len(served) != 4096 || served[4095] != id(4999) {
		t.Errorf("remembers %d releases, the last %s", len(served), served[len(served)-1])
	}
	spare := f.Channels["chat"]
	spare.Served = append(make([]statement.ID, 0, 10), id(1))
	f.Channels["chat"] = spare
	a := f.Accept("chat", trust.Channel{Serve: id(2), Epoch: 9001}, s.policy, s.now)
	f.Accept("chat", trust.Channel{Serve: id(3), Epoch: 9001}, s.policy, s.now)
	if got := a.Channels["chat"].Served[1]; got != id(2) {
		t.Errorf("a later floor changed an earlier one: served %s, want %s", got, id(2))
	}
}

// TestDecideReasons: what operators read is said of the right statement.
func TestDecideReasons(t *testing.T) {
	s := newScene(t, func(s *scene) {
		s.doc.Identities["alice"] = trust.Identity{Keys: []string{s.PublicPEM("alice"), s.PublicPEM("alice2")}}
	})
	has := func(c trust.Channel, want trust.Reason) {
		t.Helper()
		same := func(r trust.Reason) bool {
			return r.Rule == want.Rule && r.Statement == want.Statement && r.Identity == want.Identity && r.Counted == want.Counted && strings.Contains(r.Why, want.Why)
		}
		if !slices.ContainsFunc(c.Reasons, same) {
			t.Errorf("no reason like %+v in:\n%s", want, reasons(c))
		}
	}
	release := s.releaseBy("trainer", nil)
	approval := s.approval(release, "alice", trust.Approval{})
	s.approve(release, "alice2")
	payload, err := trust.NewApproval(release, trust.Approval{Ticket: "OPS-1"})
	s.underCertificate("bob", nil, payload, err)
	s.publish(release, 1)
	c := s.decide()
	has(c, trust.Reason{Rule: trust.RuleRole, Statement: approval, Identity: "alice", Counted: true, Why: "alice approved as approver"})
	has(c, trust.Reason{Rule: trust.RuleThreshold, Statement: approval, Identity: "alice", Why: "alice approved twice; one identity counts once"})
	has(c, trust.Reason{Rule: trust.RuleUnknownIdentity, Statement: s.set[3].ID(), Why: "certificate"})
	has(c, trust.Reason{Rule: trust.RuleRole, Statement: release, Identity: "trainer", Counted: true, Why: "signed the release"})

	tools := s.raw("trainer", trust.ReleaseType, s.root(), s.toolsOfOllama())
	s.publish(tools, 2)
	has(s.decide(), trust.Reason{Rule: trust.RuleUnknownField, Statement: tools, Identity: "trainer", Why: "behaviour.tools"})
	s.floor.Withdrawn = []trust.Withdrawn{{Release: release}}
	has(s.decide(), trust.Reason{Rule: trust.RuleWithdrawn, Statement: release, Identity: "trainer", Why: "withdrawn"})
}

func checkFloor(t *testing.T, f trust.Floor, s *scene, epoch int64, publication statement.ID, served ...statement.ID) {
	t.Helper()
	want := trust.ChannelFloor{Epoch: epoch, Publication: publication, Served: served}
	got := f.Channels["chat"]
	if counted := len(got.Counted); counted < 4*len(served)+1 { // release, two approvals and publication of each, and the weights of all
		t.Errorf("the floor remembers %d acts for %d releases", counted, len(served))
	}
	if rests := len(got.Rests); rests != 5 { // the weights, the release, two approvals and the publication
		t.Errorf("the accepted release rests on %d acts, want 5", rests)
	}
	if got.Counted, got.Rests = nil, nil; marshal(t, got) != marshal(t, want) {
		t.Errorf("floor of chat = %+v, want %+v", got, want)
	}
	if f.PolicyVersion != s.policy.Version() || f.PolicyDigest != s.policy.Digest() {
		t.Errorf("floor of the policy = %d %s", f.PolicyVersion, f.PolicyDigest)
	}
}
