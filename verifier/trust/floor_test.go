package trust_test

import (
	"testing"
	"time"

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
