package trust_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
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
			fresh := c.Epoch > s.floor.Channels["chat"].Epoch // so that what is not must stop, and why is told
			if told != (tt.stale || fresh) || c.Allows(s.floor.Channels["chat"].Served[0]) != tt.serve || c.Level != trusttest.Rules().MinimumLevel {
				t.Errorf("told %v, allows %v, level %q; reasons:\n%s", told, c.Allows(s.floor.Channels["chat"].Served[0]), c.Level, reasons(c))
			}
		})
	}
}

// TestLeaseGoesOn: when the lease has run out, what serves may go on only where that is told and not denied, whatever lets it
// go on: that it is frozen, or that a newer publication has not replaced it yet.
func TestLeaseGoesOn(t *testing.T) {
	const week = 7 * day
	frozen := func(s *scene) {
		bob := s.doc.Identities["bob"]
		bob.State = trust.State{Compromised: now.Add(-day)}
		s.doc.Identities["bob"] = bob
		s.amend()
	}
	standing := func(s *scene) {
		next := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
		s.approve(next, "alice", "bob")
		s.publish(next, 2)
	}
	tests := []struct {
		name   string
		then   func(*scene)
		deny   bool
		later  time.Duration
		goesOn bool
	}{
		{"frozen, within", frozen, true, week, true},
		{"frozen, run out", frozen, true, week + time.Second, false},
		{"frozen, run out, told only", frozen, false, week + time.Second, true},
		{"standing, within", standing, true, week, true},
		{"standing, run out", standing, true, week + time.Second, false},
		{"standing, run out, told only", standing, false, week + time.Second, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, rules(func(c *trust.ChannelRules) { c.OnLostQuorum = "freeze" }))
			release := s.complete()
			s.accept()
			tt.then(s)
			s.now = now.Add(tt.later)
			lease, d := trust.Lease{MaxStaleness: week, Deny: tt.deny}, trust.Decide(s.policy, s.set, s.now, s.floor)
			before, after := d.Channels["chat"], lease.Apply(d, s.floor, s.now).Channels["chat"]
			if !before.Allows(release) || before.Serve == release {
				t.Fatalf("without a lease it serves %q and allows %v; reasons:\n%s", before.Serve, before.Allows(release), reasons(before))
			}
			if after.Allows(release) != tt.goesOn || after.Serve != before.Serve {
				t.Errorf("allows %v, want %v; serves %q, want %q", !tt.goesOn, tt.goesOn, after.Serve, before.Serve)
			}
		})
	}
	// No decision is both, but a lease that has run out lets neither through.
	d := trust.Decision{Channels: map[string]trust.Channel{"chat": {Serve: "sha256:new", Epoch: 1, Frozen: "sha256:old", Standing: []statement.ID{"sha256:older"}}}}
	c := trust.Lease{MaxStaleness: week, Deny: true}.Apply(d, trust.Floor{}, now).Channels["chat"]
	if !c.Allows("sha256:new") || c.Allows("sha256:old") || c.Allows("sha256:older") {
		t.Errorf("allows new %v, old %v, older %v, want the new one alone", c.Allows("sha256:new"), c.Allows("sha256:old"), c.Allows("sha256:older"))
	}
}
