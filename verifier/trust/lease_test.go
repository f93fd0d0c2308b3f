package trust_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestLease has a site that has heard something a day ago, and what it serves by how old that is, what its lease says,
// and what it hears of then.
func TestLease(t *testing.T) {
	const week = 7 * day
	deny, warn := trust.Lease{MaxStaleness: week, Deny: true}, trust.Lease{MaxStaleness: week}
	tests := []struct {
		name  string
		lease trust.Lease
		later time.Duration  // after the release was accepted
		hears func(s *scene) // then
		serve bool
		stale bool
	}{
		{"within", deny, week, nil, true, false},
		{"run out", deny, week + time.Second, nil, false, true},
		{"run out, told only", warn, week + time.Second, nil, true, true},
		{"none", trust.Lease{}, 100 * week, nil, true, false},
		{"clock set back", deny, -day, func(s *scene) { s.floor.TimeHighWater = now.Add(2 * week) }, false, true},
		{"time goes on, nothing new", deny, 2 * week, func(s *scene) { s.floor.TimeHighWater = s.now }, false, true},
		{"the accepted publication again", deny, 2 * week, func(s *scene) { s.accept() }, false, true},
		{"a publication of the same release", deny, 2 * week, func(s *scene) {
			s.publish(s.decide().Serve, 2)
			s.accept()
		}, true, false},
		{"one that is not accepted yet", deny, 2 * week, func(s *scene) { s.publish(s.decide().Serve, 2) }, true, false},
		{"one of an epoch that was accepted", deny, 2 * week, func(s *scene) { s.publish(s.decide().Serve, 1) }, false, true},
		{"a withdrawal of something else", deny, 2 * week, func(s *scene) {
			c := s.decide()
			c.Withdrawn = []trust.Withdrawn{{Channel: "chat", Release: "sha256:other"}}
			s.floor, _ = s.floor.Withdraw(c, s.policy, s.now)
		}, true, false},
		{"the next policy", deny, 2 * week, func(s *scene) {
			s.doc.Version, s.doc.Previous = 2, s.policy.Digest()
			s.amend()
			s.floor = s.floor.AcceptPolicy(s.policy, s.now)
		}, true, false},
		{"the same policy", deny, 2 * week, func(s *scene) { s.floor = s.floor.AcceptPolicy(s.policy, s.now) }, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, nil)
			s.complete()
			s.floor = s.floor.AcceptPolicy(s.policy, now.Add(-100*week))
			s.accept()
			s.now = now.Add(tt.later)
			if tt.hears != nil {
				tt.hears(s)
			}
			c := tt.lease.Apply(trust.Decide(s.policy, s.set, s.now, s.floor), s.floor, s.now).Channels["chat"]
			if (c.Serve != "") != tt.serve || (c.Stale != "") != tt.stale {
				t.Errorf("serves %q, stale %q, want serving %v and stale %v", c.Serve, c.Stale, tt.serve, tt.stale)
			}
			told := strings.Contains(reasons(c), "the site's lease")
			if told != tt.stale || c.Allows(s.floor.Channels["chat"].Served[0]) != tt.serve || c.Level != trusttest.Rules().MinimumLevel {
				t.Errorf("told %v, allows %v, level %q; reasons:\n%s", told, c.Allows(s.floor.Channels["chat"].Served[0]), c.Level, reasons(c))
			}
		})
	}
}
