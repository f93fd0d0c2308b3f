package trust_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// ledger decides for channel chat as a gateway does.
func (s *scene) ledger() (*trust.Ledger, trust.Channel) {
	s.t.Helper()
	l := trust.NewLedger(s.policy)
	l.Follow(s.set)
	return l, l.Decide(s.now, s.floor).Channels["chat"]
}

// TestEnds: each row is a release that serves, and the days after which something that it rests on ends. The first of
// them must be when it stops serving, to the second.
func TestEnds(t *testing.T) {
	published := func(s *scene, release statement.ID, days int) {
		s.publication(release, "shipper", trust.Publication{Channel: "chat", Epoch: 1, Expires: s.now.Add(time.Duration(days) * day)})
	}
	approved := func(s *scene, release statement.ID, name string, days int, channels ...string) {
		s.approval(release, name, trust.Approval{Expires: s.now.Add(time.Duration(days) * day), Channels: channels})
	}
	tests := []struct {
		name string
		edit func(*scene)
		sign func(*scene, statement.ID) // all but the release, whose evaluation passed ten days ago
		want string
	}{
		{"nothing ends but the policy and the evaluation", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice", "bob")
			s.publish(r, 1)
		}, "evaluation 80 tester"},
		{"the publication", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice", "bob")
			published(s, r, 50)
		}, "publication 50, evaluation 80 tester"},
		{"one of two approvals", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice")
			approved(s, r, "bob", 40)
			s.publish(r, 1)
		}, "evaluation 80 tester, approval 40 bob"},
		{"one of three approvals, two needed", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice", "carol")
			approved(s, r, "bob", 40)
			s.publish(r, 1)
		}, "evaluation 80 tester"},
		{"two of three approvals, two needed", nil, func(s *scene, r statement.ID) {
			s.approve(r, "carol")
			approved(s, r, "alice", 60)
			approved(s, r, "bob", 40)
			s.publish(r, 1)
		}, "evaluation 80 tester, approval 60 alice"},
		{"an approval that was renewed", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice")
			approved(s, r, "bob", 40)
			approved(s, r, "bob", 70)
			s.publish(r, 1)
		}, "evaluation 80 tester, approval 70 bob"},
		{"an approval that was renewed for ever", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice", "bob")
			approved(s, r, "bob", 40)
			s.publish(r, 1)
		}, "evaluation 80 tester"},
		{"an approval for another channel renews nothing", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice")
			approved(s, r, "bob", 40)
			approved(s, r, "bob", 70, "embed")
			s.publish(r, 1)
		}, "evaluation 80 tester, approval 40 bob"},
		{"the approvals of an older release last longer", nil, func(s *scene, r statement.ID) {
			s.version("older", 1)
			s.approve(r, "alice")
			approved(s, r, "bob", 40)
			s.publish(r, 2)
		}, "evaluation 80 tester, approval 40 bob"},
		{"a newer evaluation", nil, func(s *scene, r statement.ID) {
			s.evaluated(r, "tester", trust.Passed, 5*day)
			s.approve(r, "alice", "bob")
			s.publish(r, 1)
		}, "evaluation 85 tester"},
		{"evaluations of any age", rules(func(c *trust.ChannelRules) { c.Require.Evaluation.MaxAge = "" }), func(s *scene, r statement.ID) {
			s.approve(r, "alice", "bob")
			s.publish(r, 1)
		}, ""},
		{"mode warn, of too few approvals", rules(func(c *trust.ChannelRules) { c.Mode = "warn" }), func(s *scene, r statement.ID) {
			approved(s, r, "bob", 40)
			published(s, r, 50)
		}, "publication 50, evaluation 80 tester"},
		{"a rollback, for which evaluations do not age", nil, func(s *scene, r statement.ID) {
			s.approve(r, "alice", "bob")
			s.publish(r, 1)
			s.accept()
			s.rollback(r, "night", 2)
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			edit := duties
			if tt.edit != nil {
				edit = and(duties, tt.edit)
			}
			s := newScene(t, edit)
			release := s.releaseBy("trainer", nil)
			s.evaluated(release, "tester", trust.Passed, 10*day)
			tt.sign(s, release)
			l, c := s.ledger()
			if c.Serve != release {
				t.Fatalf("serves %q, want %s:\n%s", c.Serve, release, reasons(c))
			}
			ends := l.Ends("chat", c)
			if len(ends) == 0 || ends[0] != (trust.End{Kind: "policy", At: s.policy.Expires()}) {
				t.Fatalf("ends = %+v, want the policy's first", ends)
			}
			var got []string
			for _, e := range ends[1:] {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %d %s", e.Kind, int(e.At.Sub(s.now)/day), e.Identity)))
			}
			if text := strings.Join(got, ", "); text != tt.want {
				t.Errorf("ends = %s, want %s", text, tt.want)
			}
			if len(c.Missing) > 0 {
				return // mode warn goes on without
			}
			s.accept() // nothing older comes back
			first := slices.MinFunc(ends, func(a, b trust.End) int { return a.At.Compare(b.At) }).At
			for at, want := range map[time.Time]statement.ID{first.Add(-time.Second): release, first: ""} {
				if s.now = at; s.decide().Serve != want {
					t.Errorf("at %s serves %q, want %q", at, s.decide().Serve, want)
				}
			}
		})
	}
}

// TestRefusals: each row breaks one thing of a release that was served, and wants the rules by which it serves no more.
func TestRefusals(t *testing.T) {
	compromise := func(name string) func(*scene) {
		return func(s *scene) {
			identity := s.doc.Identities[name]
			identity.State = trust.State{Compromised: now.Add(-time.Hour)}
			s.doc.Identities[name] = identity
		}
	}
	tests := []struct {
		name  string
		spoil func(s *scene, release statement.ID)
		want  string
	}{
		{"nothing", func(*scene, statement.ID) {}, ""},
		{"withdrawn", func(s *scene, r statement.ID) { s.withdrawal(r, "warden", trust.OfRelease) }, "threshold withdrawn"},
		{"an approver is compromised", func(s *scene, _ statement.ID) { compromise("bob")(s) }, "lifecycle threshold"},
		{"the producer is compromised", func(s *scene, _ statement.ID) { compromise("trainer")(s) }, "lifecycle threshold"},
		{"the publisher is compromised", func(s *scene, _ statement.ID) { compromise("shipper")(s) }, "lifecycle threshold"},
		{"an approver leaves the role", func(s *scene, _ statement.ID) {
			s.doc.Roles["approver"] = trust.Role{Members: []string{"alice", "carol"}}
		}, "role threshold"},
		{"the evaluation is too old", func(s *scene, _ statement.ID) { s.now = s.now.Add(90 * day) }, "max-age threshold"},
		{"it fails", func(s *scene, r statement.ID) { s.evaluated(r, "tester", trust.Failed, 0) }, "test-failed threshold"},
		{"the policy expires", func(s *scene, _ statement.ID) { s.now = s.policy.Expires() }, "expired max-age"},
		{"the publication expires", func(s *scene, _ statement.ID) { s.now = s.now.Add(50 * day) }, "expired threshold"},
		{"all is withheld", func(s *scene, _ statement.ID) { s.set = nil }, "threshold"},
		{"its weights are not by their role", func(s *scene, _ statement.ID) {
			s.chat(func(c *trust.ChannelRules) { c.Require.Weights = &trust.Rule{Role: "approver"} })
		}, "role threshold"},
		{"the evaluation is too old, which mode warn lets pass", func(s *scene, _ statement.ID) {
			s.chat(func(c *trust.ChannelRules) { c.Mode = "warn" })
			s.now = s.now.Add(90 * day)
		}, ""},
		{"withdrawn, after an older release whose approver is compromised, and published twice", func(s *scene, r statement.ID) {
			s.approve(r, "carol")
			older := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "0" })
			s.approve(older, "bob")
			s.publish(older, 2)
			s.publish(r, 3)
			s.accept()
			compromise("bob")(s)
			s.set = slices.DeleteFunc(s.set, func(one *statement.Signed) bool {
				about, _, err := trust.ParseApproval(one)
				return err == nil && about == r && one.VerifyKey(s.Key("bob").Public()) == nil
			})
			s.withdrawal(r, "warden", trust.OfRelease)
		}, "threshold withdrawn"},
		{"approved for another channel only, and by a stranger", func(s *scene, r statement.ID) {
			s.set = slices.DeleteFunc(s.set, func(one *statement.Signed) bool { return one.PredicateType() == trust.ApprovalType })
			s.approval(r, "carol", trust.Approval{Channels: []string{"embed"}})
			s.approve(r, "mallory")
		}, "threshold"},
		// What is about other releases, or by nobody we know, is no reason.
		{"withheld, and others' statements are there", func(s *scene, _ statement.ID) {
			s.set = nil
			compromise("bob")(s)
			other := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
			s.approve(other, "bob")
			s.publication(other, "mallory", trust.Publication{Channel: "chat", Epoch: 2})
		}, "threshold"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, duties)
			release := s.releaseBy("trainer", nil)
			s.evaluated(release, "tester", trust.Passed, 0)
			s.approve(release, "alice", "bob")
			expires := time.Time{}
			if tt.name == "the publication expires" {
				expires = s.now.Add(50 * day)
			}
			s.publication(release, "shipper", trust.Publication{Channel: "chat", Epoch: 1, Expires: expires})
			s.accept()
			tt.spoil(s, release)
			s.amend()
			l, c := s.ledger()
			if got := strings.Join(l.Refusals("chat", c, s.floor), " "); got != tt.want {
				t.Errorf("refusals = %q, want %q; serves %q:\n%s", got, tt.want, c.Serve, reasons(c))
			}
		})
	}
}

// TestUses: what statements show that identities do, whether or not it counts.
func TestUses(t *testing.T) {
	s := newScene(t, and(duties, func(s *scene) {
		s.join("publisher", "alice")
		alice := s.doc.Identities["alice"]
		alice.Keys = append(alice.Keys, s.PublicPEM("alice-laptop"), s.PublicPEM("alice-desk"))
		s.doc.Identities["alice"] = alice
	}))
	release := s.complete()
	s.approval(release, "alice-laptop", trust.Approval{}) // the statement that her other key signed too
	s.approval(release, "carol", trust.Approval{Channels: []string{"embed"}})
	s.approve(release, "mallory")
	s.rollback(release, "shipper", 2)
	l, _ := s.ledger()
	var got []string
	for who, use := range l.Uses() {
		var roles []string
		for role := range use.Roles {
			roles = append(roles, role)
		}
		slices.Sort(roles)
		got = append(got, fmt.Sprintf("%s %v %d", who, roles, len(use.Keys)))
		if who == "alice" && (!use.Keys[s.KeyID("alice")] || !use.Keys[s.KeyID("alice-laptop")]) {
			t.Errorf("alice's keys = %v, want those two that signed", use.Keys)
		}
	}
	slices.Sort(got)
	want := "alice [approver] 2, bob [approver] 1, carol [] 1, shipper [publisher] 1, trainer [producer] 1"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("uses = %s, want %s", text, want)
	}
}
