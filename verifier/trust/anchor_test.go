package trust_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func TestAnchorAccept(t *testing.T) {
	type inputs struct {
		anchor  trust.Anchor
		bundles []*statement.Signed
		current *trust.Floor
		last    *trust.Policy
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
		{"the same as accepted, whoever signed it", func(in *inputs) {
			in.bundles = []*statement.Signed{s.Sign("mallory", payload)}
			in.current = &trust.Floor{PolicyVersion: 1, PolicyDigest: digest}
		}, ""},
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
			policy, err := in.anchor.Accept(in.bundles, in.current, in.last)
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

	_, err := anchor.Accept(without, nil, nil)
	checkRefused(t, err, trust.ErrRefused, "0 of 1")
	if _, err := anchor.Accept(with, nil, nil); err != nil {
		t.Errorf("Accept with the key in rootKeys: %v", err)
	}
	anchor.Public = append(anchor.Public, s.Key("vault").Public())
	if _, err := anchor.Accept(without, nil, nil); err != nil {
		t.Errorf("Accept with the key held by the site: %v", err)
	}
	// A key that the site holds but does not pin grants nothing.
	anchor.Keys = []statement.KeyID{s.KeyID("alice")}
	_, err = anchor.Accept(without, nil, nil)
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
