package trust_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestFloorCovers has a floor that covers itself and, beside it, one thing that goes back per row.
func TestFloorCovers(t *testing.T) {
	floor := func(edit func(*trust.Floor)) trust.Floor {
		f := trust.Floor{
			PolicyVersion: 3, PolicyDigest: "sha256:p", TimeHighWater: now,
			Withdrawn: []trust.Withdrawn{{Release: "sha256:w"}},
			Channels:  map[string]trust.ChannelFloor{"chat": {Epoch: 7, Publication: "sha256:a"}},
		}
		edit(&f)
		return f
	}
	there := floor(func(*trust.Floor) {})
	for name, tt := range map[string]struct {
		edit func(*trust.Floor)
		want bool
	}{
		"the same":            {func(*trust.Floor) {}, true},
		"a later policy":      {func(f *trust.Floor) { f.PolicyVersion, f.PolicyDigest = 4, "sha256:q" }, true},
		"an older policy":     {func(f *trust.Floor) { f.PolicyVersion = 2 }, false},
		"another policy":      {func(f *trust.Floor) { f.PolicyDigest = "sha256:q" }, false},
		"an earlier time":     {func(f *trust.Floor) { f.TimeHighWater = now.Add(-time.Second) }, false},
		"no withdrawal":       {func(f *trust.Floor) { f.Withdrawn = nil }, false},
		"no channel":          {func(f *trust.Floor) { f.Channels = nil }, false},
		"a lower epoch":       {func(f *trust.Floor) { f.Channels["chat"] = trust.ChannelFloor{Epoch: 6} }, false},
		"a twin of the epoch": {func(f *trust.Floor) { f.Channels["chat"] = trust.ChannelFloor{Epoch: 7, Publication: "sha256:b"} }, false},
		"a higher epoch":      {func(f *trust.Floor) { f.Channels["chat"] = trust.ChannelFloor{Epoch: 8} }, true},
	} {
		if got := floor(tt.edit).Covers(there); got != tt.want {
			t.Errorf("%s: Covers = %v, want %v", name, got, tt.want)
		}
	}
}

// TestFloorRemembersTimes: of each act that the accepted release rests on, the earliest trusted time is kept.
func TestFloorRemembersTimes(t *testing.T) {
	at := now.Add(-time.Hour)
	keyed := func(stamp func(s *scene)) func(*scene, statement.ID) {
		return func(s *scene, release statement.ID) {
			s.approve(release, "carol")
			stamp(s)
		}
	}
	tests := []struct {
		name    string
		policy  func(*scene)
		approve func(*scene, statement.ID)
		want    time.Time
	}{
		{"a key, stamped", certified(), keyed(func(s *scene) { s.stamp(at) }), at},
		{"a key, not stamped", certified(), keyed(func(*scene) {}), time.Time{}},
		{"a key, stamped by a stranger", certified(), keyed(stranger), time.Time{}},
		{"a key, in three bundles", certified(), keyed(func(s *scene) {
			untimed := s.set[len(s.set)-1]
			s.stamp(at.Add(time.Minute))
			s.add(untimed)
			s.stamp(at)
			s.add(untimed)
		}), at},
		{"two keys, the first of them stamped", and(certified(), func(s *scene) {
			s.doc.Identities["carol"] = trust.Identity{Keys: []string{s.PublicPEM("carol"), s.PublicPEM("laptop")}}
		}), func(s *scene, release statement.ID) {
			keys := []string{"carol", "laptop"}
			slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(s.KeyID(a), s.KeyID(b)) })
			s.approve(release, keys[0])
			s.stamp(at)
			s.approve(release, keys[1])
		}, at},
		{"a certificate, stamped", certified("carol"), func(s *scene, release statement.ID) {
			payload, err := trust.NewApproval(release, trust.Approval{})
			s.underCertificate("carol", nil, payload, err)
			s.stamp(at)
		}, at},
		{"an account, in a log", holders("carol"), func(s *scene, release statement.ID) {
			payload, err := trust.NewApproval(release, trust.Approval{})
			s.withAccount("carol", func(by *keylesstest.Signing) { by.At = at }, payload, err)
		}, at},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.policy)
			release := s.releaseBy("trainer", nil)
			s.approve(release, "alice")
			tt.approve(s, release)
			s.publish(release, 1)
			s.accept()
			for _, act := range s.floor.Channels["chat"].Rests {
				want := time.Time{}
				if act.Identity == "carol" {
					want = tt.want
				}
				if !act.At.Equal(want) {
					t.Errorf("what %s did is of %s, want %s", act.Identity, act.At, want)
				}
			}
		})
	}
}

// TestFloorNeverGoesDown: what an older policy decided may be kept when a newer one has been accepted already, and a
// clock may be set back; neither brings anything back.
func TestFloorNeverGoesDown(t *testing.T) {
	s := newScene(t, nil)
	s.complete()
	there := trust.Floor{PolicyVersion: 2, PolicyDigest: "sha256:later", TimeHighWater: now.Add(time.Hour)}
	c := s.decide()
	withdrawn := c
	withdrawn.Withdrawn = []trust.Withdrawn{{Channel: "chat", Release: "sha256:w"}}
	after, changed := there.Withdraw(withdrawn, s.policy, now)
	if !changed || !after.Covers(there) {
		t.Errorf("Withdraw = %+v, want it to cover %+v", after, there)
	}
	if after := there.Accept("chat", c, s.policy, now); !after.Covers(there) || after.Channels["chat"].Epoch != 1 {
		t.Errorf("Accept = %+v, want it to cover %+v", after, there)
	}
}

// TestFloorWithdrew has a release with an adapter, and one withdrawal per row.
func TestFloorWithdrew(t *testing.T) {
	s := newScene(t, nil)
	id := s.adapted(s.adapter("trainer", "one.gguf"))
	c := s.decide()
	if c.Serve != id {
		t.Fatalf("serves %q, want the release", c.Serve)
	}
	adapter := c.Release.Adapters()[0].Root
	for name, tt := range map[string]struct {
		withdrawn trust.Withdrawn
		want      bool
	}{
		"the release":                    {trust.Withdrawn{Release: id}, true},
		"the release here":               {trust.Withdrawn{Channel: "chat", Release: id}, true},
		"the release on another channel": {trust.Withdrawn{Channel: "embed", Release: id}, false},
		"its weights":                    {trust.Withdrawn{Weights: c.Release.Weights.Root}, true},
		"its adapter":                    {trust.Withdrawn{Weights: adapter}, true},
		"another release":                {trust.Withdrawn{Release: s.policy.Digest()}, false},
	} {
		floor := trust.Floor{Withdrawn: []trust.Withdrawn{tt.withdrawn}}
		if got := floor.Withdrew("chat", c.Release); got != tt.want {
			t.Errorf("%s: Withdrew = %v, want %v", name, got, tt.want)
		}
	}
}
