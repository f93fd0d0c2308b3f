package trust_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
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
	// Served a third time, a release is remembered once.
	s.publish(first, 3)
	s.floor = f2
	c3 := s.decide()
	checkFloor(t, f2.Accept("chat", c3, s.policy, s.now), s, 3, c3.Publication, first, second)
}

func checkFloor(t *testing.T, f trust.Floor, s *scene, epoch int64, publication statement.ID, served ...statement.ID) {
	t.Helper()
	want := trust.ChannelFloor{Epoch: epoch, Publication: publication, Served: served}
	if got := f.Channels["chat"]; marshal(t, got) != marshal(t, want) {
		t.Errorf("floor of chat = %+v, want %+v", got, want)
	}
	if f.PolicyVersion != s.policy.Version() || f.PolicyDigest != s.policy.Digest() {
		t.Errorf("floor of the policy = %d %s", f.PolicyVersion, f.PolicyDigest)
	}
}

func TestAnchorAccept(t *testing.T) {
	type inputs struct {
		anchor  trust.Anchor
		bundles []*statement.Signed
		current *trust.Floor
	}
	s := newScene(t, nil)
	payload := s.policyPayload(nil)
	other := s.policyPayload(func(d *trust.Document) { d.Version = 2 })
	shared := s.policyPayload(func(d *trust.Document) { // one identity has both root keys
		d.Identities["alice"] = trust.Identity{Keys: []string{s.PublicPEM("alice"), s.PublicPEM("bob")}}
		delete(d.Identities, "bob")
		d.Roles["root"] = trust.Role{Members: []string{"alice"}}
		d.Roles["approver"] = trust.Role{Members: []string{"alice", "carol"}}
	})
	digest := s.Sign("alice", payload).ID()
	zeros := statement.ID("sha256:" + strings.Repeat("0", 64))
	tests := []struct {
		name   string
		change func(*inputs)
		want   string // part of the error; "" accepts
	}{
		{"both root keys", func(*inputs) {}, ""},
		{"in the other order", func(in *inputs) { slices.Reverse(in.bundles) }, ""},
		{"a third signer beside them", func(in *inputs) { in.bundles = append(in.bundles, s.Sign("mallory", payload)) }, ""},
		{"the same as accepted", func(in *inputs) { in.current = &trust.Floor{PolicyVersion: 1, PolicyDigest: digest} }, ""},
		{"an empty floor", func(in *inputs) { in.current = &trust.Floor{} }, ""},
		{"a threshold of one", func(in *inputs) { in.anchor.Threshold = 1; in.bundles = in.bundles[:1] }, ""},

		{"nothing pinned", func(in *inputs) { in.anchor.Keys = nil }, "no root key is pinned"},
		{"no threshold", func(in *inputs) { in.anchor.Threshold = 0 }, "threshold is 0"},
		{"a threshold above the keys", func(in *inputs) { in.anchor.Threshold = 3 }, "threshold is 3"},
		{"one key pinned twice", func(in *inputs) { in.anchor.Keys[1] = in.anchor.Keys[0] }, "threshold is 2 of 1"},
		{"no bundles", func(in *inputs) { in.bundles = nil }, "nothing is signed"},
		{"one signer", func(in *inputs) { in.bundles = in.bundles[:1] }, "1 of 2"},
		{"one signer twice", func(in *inputs) { in.bundles[1] = s.Sign("alice", payload) }, "1 of 2"},
		{"a stranger in place of one", func(in *inputs) { in.bundles[1] = s.Sign("mallory", payload) }, "1 of 2"},
		{"another identity in place of one", func(in *inputs) { in.bundles[1] = s.Sign("carol", payload) }, "1 of 2"},
		{"another payload", func(in *inputs) { in.bundles[1] = s.Sign("bob", other) }, "different policies"},
		{"a forged signature", func(in *inputs) { in.bundles[1] = forge(t, s.Sign("bob", other), payload) }, "1 of 2"},
		{"both keys are one identity's", func(in *inputs) {
			in.bundles = []*statement.Signed{s.Sign("alice", shared), s.Sign("bob", shared)}
		}, "1 of 2"},
		{"below the floor", func(in *inputs) { in.current = &trust.Floor{PolicyVersion: 2, PolicyDigest: zeros} }, "below the accepted version 2"},
		{"another of the accepted version", func(in *inputs) { in.current = &trust.Floor{PolicyVersion: 1, PolicyDigest: zeros} }, "it is not the version 1"},
		{"above the floor", func(in *inputs) {
			in.bundles = []*statement.Signed{s.Sign("alice", other), s.Sign("bob", other)}
			in.current = &trust.Floor{PolicyVersion: 1, PolicyDigest: digest}
		}, "not in this version"},
		{"no policy at all", func(in *inputs) {
			approval, err := trust.NewApproval(zeros, trust.Approval{})
			if err != nil {
				t.Fatal(err)
			}
			in.bundles = []*statement.Signed{s.Sign("alice", approval), s.Sign("bob", approval)}
		}, "predicate type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := inputs{anchor: s.Anchor(), bundles: []*statement.Signed{s.Sign("alice", payload), s.Sign("bob", payload)}}
			tt.change(&in)
			policy, err := in.anchor.Accept(in.bundles, in.current)
			checkRefused(t, err, trust.ErrRefused, tt.want)
			if (policy == nil) != (err != nil) {
				t.Errorf("policy %v beside the error %v", policy, err)
			}
		})
	}
}

// TestAnchorOutsidePolicy: a root key that is no identity's is found in the policy's rootKeys, or with the site.
func TestAnchorOutsidePolicy(t *testing.T) {
	s := newScene(t, nil)
	anchor := trust.Anchor{Keys: []statement.KeyID{s.KeyID("vault")}, Threshold: 1}
	without := []*statement.Signed{s.Sign("vault", s.policyPayload(nil))}
	with := []*statement.Signed{s.Sign("vault", s.policyPayload(func(d *trust.Document) { d.RootKeys = []string{s.PublicPEM("vault")} }))}

	_, err := anchor.Accept(without, nil)
	checkRefused(t, err, trust.ErrRefused, "0 of 1")
	if _, err := anchor.Accept(with, nil); err != nil {
		t.Errorf("Accept with the key in rootKeys: %v", err)
	}
	anchor.Public = append(anchor.Public, s.Key("vault").Public())
	if _, err := anchor.Accept(without, nil); err != nil {
		t.Errorf("Accept with the key held by the site: %v", err)
	}
	// A key that the site holds but does not pin grants nothing.
	anchor.Keys = []statement.KeyID{s.KeyID("alice")}
	_, err = anchor.Accept(without, nil)
	checkRefused(t, err, trust.ErrRefused, "0 of 1")
}

func (s *scene) policyPayload(edit func(*trust.Document)) []byte {
	s.t.Helper()
	d := s.Document()
	d.Roles, d.Identities = maps.Clone(d.Roles), maps.Clone(d.Identities)
	if edit != nil {
		edit(&d)
	}
	payload, err := trust.NewPolicy(d)
	if err != nil {
		s.t.Fatal(err)
	}
	return payload
}
