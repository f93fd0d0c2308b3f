package trust_test

import (
	"testing"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestRotation: who may replace an accepted policy by which. Alice and bob are the root of the first; carol and bob are
// that of the second.
func TestRotation(t *testing.T) {
	s := newScene(t, nil)
	first := s.SignPolicy(nil)
	accepted := trust.Floor{}.AcceptPolicy(first, now)
	second := func(edit func(*trust.Document)) []byte {
		return s.policyPayload(func(d *trust.Document) {
			d.Version, d.Previous = 2, first.Digest()
			d.Roles["root"] = trust.Role{Members: []string{"bob", "carol"}, Threshold: 2}
			if edit != nil {
				edit(d)
			}
		})
	}
	signed := func(payload []byte, names ...string) (all []*statement.Signed) {
		for _, name := range names {
			all = append(all, s.Sign(name, payload))
		}
		return all
	}
	plain := second(nil)
	self := second(func(d *trust.Document) { // names its own root
		d.Identities["mallory"] = trust.Identity{Keys: []string{s.PublicPEM("mallory")}}
		d.Roles["root"] = trust.Role{Members: []string{"mallory"}}
	})
	twoKeys := second(func(d *trust.Document) {
		d.Identities["carol"] = trust.Identity{Keys: []string{s.PublicPEM("carol"), s.PublicPEM("carol2")}}
		d.Roles["root"] = trust.Role{Members: []string{"alice", "bob", "carol"}, Threshold: 3}
	})
	retired := second(func(d *trust.Document) {
		d.Identities["carol"] = trust.Identity{Keys: []string{s.PublicPEM("carol")}, State: trust.State{Retired: now}}
		d.Roles["root"] = trust.Role{Members: []string{"alice", "bob", "carol"}, Threshold: 3}
	})
	rootless := second(func(d *trust.Document) { delete(d.Roles, "root") })
	tests := []struct {
		name    string
		bundles []*statement.Signed
		last    *trust.Policy
		want    string // part of the error; "" accepts
	}{
		{"both roots", signed(plain, "alice", "bob", "carol"), first, ""},
		{"the old root alone", signed(plain, "alice", "bob"), first, "1 of the 2 root members that policy version 2 requires"},
		{"the new root alone", signed(plain, "bob", "carol"), first, "1 of the 2 root members that policy version 1 requires"},
		{"signed by the keys that it names itself", signed(self, "mallory"), first, "0 of the 2 root members that policy version 1 requires"},
		{"two keys of one root member", signed(twoKeys, "alice", "carol", "carol2"), first, "1 of the 2 root members that policy version 1"},
		{"two keys of one new root member", signed(twoKeys, "alice", "bob", "carol", "carol2"), first, ""},
		{"a new root member who has retired", signed(retired, "alice", "bob", "carol"), first, "2 of the 3 root members that policy version 2"},
		{"a policy that leaves its root to the pinned keys", signed(rootless, "alice", "bob"), first, ""},
		{"the same without a pinned key", signed(rootless, "alice", "carol"), first, "1 of the 2 root members that policy version 1"},
		{"the accepted policy is not at hand", signed(plain, "alice", "bob", "carol"), nil, "not at hand"},
		{"another policy is at hand", signed(plain, "alice", "bob", "carol"), s.SignPolicy(func(d *trust.Document) { d.Expires = now }), "not at hand"},
		{"a version is skipped", signed(second(func(d *trust.Document) { d.Version = 3 }), "alice", "bob", "carol"), first, "would skip version 2"},
		{"no predecessor", signed(second(func(d *trust.Document) { d.Previous = "" }), "alice", "bob", "carol"), first, "does not name its predecessor"},
		{"another predecessor", signed(second(func(d *trust.Document) { d.Previous = statement.ID("sha256:" + s.root()) }), "alice", "bob", "carol"), first, "does not name its predecessor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := s.Anchor().Accept(tt.bundles, &accepted, tt.last)
			checkRefused(t, err, trust.ErrRefused, tt.want)
			if (p == nil) != (err != nil) {
				t.Errorf("policy %v beside the error %v", p, err)
			}
		})
	}

	// From there on the second root decides, and the pinned keys of the first one alone do not.
	p, err := s.Anchor().Accept(signed(plain, "alice", "bob", "carol"), &accepted, first)
	if err != nil {
		t.Fatal(err)
	}
	accepted = accepted.AcceptPolicy(p, now)
	third := s.policyPayload(func(d *trust.Document) { d.Version, d.Previous = 3, p.Digest() })
	_, err = s.Anchor().Accept(signed(third, "alice", "bob"), &accepted, p)
	checkRefused(t, err, trust.ErrRefused, "1 of the 2 root members that policy version 2")
	if _, err := s.Anchor().Accept(signed(third, "alice", "bob", "carol"), &accepted, p); err != nil {
		t.Errorf("third policy: %v", err)
	}
	_, err = s.Anchor().Accept(signed(s.policyPayload(nil), "alice", "bob"), &accepted, p)
	checkRefused(t, err, trust.ErrRefused, "below the accepted version 2")
}
