package trust_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestLedger: a ledger that has followed statements as they came and went decides what Decide does.
func TestLedger(t *testing.T) {
	s := newScene(t, duties)
	first, second := s.twoServed()
	s.evaluated(second, "tester", trust.Failed, 0)
	s.withdrawal(first, "warden", trust.OfRelease)
	s.rollback(first, "night", 3)
	s.approve(second, "mallory", "carol")
	s.raw("bob", trust.ApprovalType, first.Hex(), `{"unless":"monday"}`)
	brief := func(d trust.Decision) string {
		for name, c := range d.Channels {
			c.Reasons = nil
			d.Channels[name] = c
		}
		return marshal(t, d)
	}
	l := trust.NewLedger(s.policy)
	for range 200 {
		var set []*statement.Signed
		for _, one := range s.set {
			if rand.IntN(4) > 0 {
				set = append(set, one)
			}
		}
		rand.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
		l.Follow(set)
		all := trust.Decide(s.policy, set, s.now, s.floor)
		got := l.Decide(s.now, s.floor)
		for name, c := range got.Channels {
			for _, r := range c.Reasons {
				if !slices.Contains(all.Channels[name].Reasons, r) {
					t.Errorf("%s: reason %+v is none of those that Decide gives", name, r)
				}
			}
		}
		if a, b := brief(got), brief(all); a != b {
			t.Fatalf("the ledger decides\n%s\nwant\n%s", a, b)
		}
	}
	if d := trust.NewLedger(nil).Decide(s.now, s.floor); len(d.Channels) != 0 {
		t.Errorf("a ledger without a policy decides %+v", d)
	}
}
