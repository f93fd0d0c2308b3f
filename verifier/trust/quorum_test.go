package trust_test

import (
	"slices"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestLostQuorum: what a channel does when what it serves no longer meets its requirements, by what its policy says and
// why it does not.
func TestLostQuorum(t *testing.T) {
	remove := func(name string) func(*scene) {
		return func(s *scene) {
			delete(s.doc.Identities, name)
			for role, r := range s.doc.Roles {
				var left []string
				for _, member := range r.Members {
					if member != name {
						left = append(left, member)
					}
				}
				if r.Members = left; left == nil {
					r.Members = []string{"carol"}
				}
				r.Threshold = min(r.Threshold, len(r.Members))
				s.doc.Roles[role] = r
			}
		}
	}
	// Bob approved the second half an hour ago by a trusted time. Nobody says when alice did.
	compromise := func(name string, ago time.Duration) func(*scene) {
		return func(s *scene) {
			identity := s.doc.Identities[name]
			identity.State = trust.State{Compromised: now.Add(-ago)}
			s.doc.Identities[name] = identity
		}
	}
	withhold := func(name string) func(*scene) { // whose approval of the second
		at := map[string]int{"alice": 3, "bob": 2}[name] // from the end
		return func(s *scene) { s.set = slices.Delete(s.set, len(s.set)-at, len(s.set)-at+1) }
	}
	untimed := func(s *scene) {
		bobs := len(s.set) - 2
		s.set[bobs] = s.Sign("bob", s.set[bobs].Payload())
	}
	stand := func(*scene) {}
	const nothing, first, second, frozen = "nothing", "first", "second", "second, frozen"
	tests := []struct {
		name                 string
		then                 func(*scene)
		stop, previous, hold string // what serves, by onLostQuorum
	}{
		{"all stand", stand, second, second, second},
		{"an approver of the second is removed", remove("bob"), nothing, first, frozen},
		{"an approver of the second is compromised", compromise("bob", time.Hour), nothing, first, frozen},
		{"an approver of the second was compromised later", compromise("bob", time.Minute), second, second, second},
		{"an approver of the second retires", retire("bob"), second, second, second},
		{"an approver of both is removed", remove("alice"), nothing, nothing, frozen},
		{"the producer is removed", remove("trainer"), nothing, nothing, frozen},
		{"the publisher of both is removed", remove("shipper"), nothing, nothing, frozen},
		{"the publisher retires", retire("shipper"), second, second, second},
		{"the evaluations get too old", func(s *scene) { s.now = s.now.Add(90 * day) }, nothing, nothing, frozen},
		{"that of the second gets too old", func(s *scene) {
			s.now = s.now.Add(90 * day)
			s.evaluated(s.floor.Channels["chat"].Served[0], "tester", trust.Passed, 0)
		}, nothing, first, frozen},
		{"the second fails", func(s *scene) { s.evaluated(s.floor.Channels["chat"].Served[1], "tester", trust.Failed, 0) }, nothing, first, frozen},
		{"the publication expires", func(s *scene) { s.now = s.now.Add(80 * day) }, nothing, nothing, nothing},
		{"the publication is withheld", func(s *scene) { s.set = s.set[:len(s.set)-1] }, nothing, nothing, nothing},
		{"an approval is withheld", withhold("bob"), nothing, nothing, nothing},
		{"an approval by one who was compromised later is withheld", and(withhold("bob"), compromise("bob", time.Minute)), nothing, nothing, nothing},
		{"the time of an approval by such a one is withheld", and(untimed, compromise("bob", time.Minute)), nothing, nothing, nothing},
		{"an approval by one who was compromised before is withheld", and(withhold("bob"), compromise("bob", time.Hour)), nothing, first, frozen},
		{"an approval by one who was compromised at that very time is withheld", and(withhold("bob"), compromise("bob", 30*time.Minute)), nothing, first, frozen},
		{"an approval without a time by one who was compromised is withheld", and(withhold("alice"), compromise("alice", time.Minute)), nothing, nothing, frozen},
		{"the release is withheld", func(s *scene) {
			s.set = slices.DeleteFunc(s.set, func(one *statement.Signed) bool { return one.ID() == s.floor.Channels["chat"].Served[1] })
		}, nothing, nothing, nothing},
		{"the publication is signed by another key", func(s *scene) {
			last := len(s.set) - 1
			s.set[last] = s.Sign("mallory", s.set[last].Payload())
		}, nothing, nothing, nothing},
		{"an approver of the second is removed, and an approval of it withheld", func(s *scene) {
			withhold("alice")(s)
			remove("bob")(s)
		}, nothing, nothing, nothing},
	}
	for _, tt := range tests {
		for mode, want := range map[string]string{"stop": tt.stop, "previous": tt.previous, "freeze": tt.hold} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, and(duties, certified(), rules(func(c *trust.ChannelRules) { c.OnLostQuorum = mode })))
				one := s.releaseBy("trainer", nil)
				s.evaluated(one, "tester", trust.Passed, 0)
				s.approve(one, "alice", "carol")
				s.publish(one, 1)
				s.accept()
				two := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
				s.evaluated(two, "tester", trust.Passed, 0)
				s.approve(two, "alice", "bob")
				s.stamp(now.Add(-30 * time.Minute))
				expires := time.Time{}
				if tt.name == "the publication expires" {
					expires = now.Add(80 * day)
				}
				accepted := s.publication(two, "shipper", trust.Publication{Channel: "chat", Epoch: 2, Expires: expires})
				s.accept()

				tt.then(s)
				s.amend()
				got := s.decide()
				serves := map[statement.ID]string{"": nothing, one: first, two: second}[got.Serve]
				if got.Frozen == two && got.Serve == "" {
					serves = frozen
				}
				if serves != want || got.Allows(two) != (want == second || want == frozen) || got.Fallback != (want == first) {
					t.Errorf("serves %s (frozen %q, fallback %v), want %s; reasons:\n%s", serves, got.Frozen, got.Fallback, want, reasons(got))
				}
				if got.Serve != "" && (got.Epoch != 2 || got.Publication != accepted) {
					t.Errorf("serves by publication %s at epoch %d, want what was accepted last", got.Publication, got.Epoch)
				}
				if want == first {
					if after := s.floor.Accept("chat", got, s.policy, s.now); marshal(t, after.Channels) != marshal(t, s.floor.Channels) {
						t.Errorf("falling back changed the floor to %+v", after.Channels)
					}
				}
			})
		}
	}
}

// amend decides by the document as it is now; who may change a policy is not these tests' matter.
func (s *scene) amend() {
	s.t.Helper()
	payload, err := trust.NewPolicy(s.doc)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.policy, err = trust.ParsePolicy(s.Sign("alice", payload), s.Keyless); err != nil {
		s.t.Fatal(err)
	}
}

// TestLostQuorumSaysWhat: what the accepted release lacks is told, and who could supply it.
func TestLostQuorumSaysWhat(t *testing.T) {
	s := newScene(t, nil)
	s.complete()
	s.accept()
	bob := s.doc.Identities["bob"]
	bob.State = trust.State{Compromised: now.Add(-time.Hour)}
	s.doc.Identities["bob"] = bob
	s.amend()
	if got := s.decide(); len(got.Missing) != 1 || describe(got.Missing[0]) != "approver 1/2 by carol" {
		t.Errorf("missing %v, want an approval, which carol could give", got.Missing)
	}
	s.set = s.set[:len(s.set)-2] // the publication is withheld, which lacks nothing but itself
	if got := s.decide(); len(got.Missing) != 1 || describe(got.Missing[0]) != "publisher 0/1 by shipper" {
		t.Errorf("missing %v, want a publication", got.Missing)
	}
}

// TestRetiredAfterwards: what someone signed before retiring counts where it was accepted, and nowhere else.
func TestRetiredAfterwards(t *testing.T) {
	s := newScene(t, duties)
	s.version("1", 1)
	s.accept()
	retire("bob")(s)
	s.amend()
	second := s.version("2", 2)
	if got := s.decide(); got.Epoch != 1 || len(got.Pending) != 1 || describe(got.Pending[0].Missing[0]) != "approver 1/2 by carol" {
		t.Errorf("serves epoch %d with %+v pending, want epoch 1, and one more approval for the second", got.Epoch, got.Pending)
	}
	s.approve(second, "carol")
	if got := s.decide(); got.Serve != second {
		t.Errorf("serves %s, want the second release; reasons:\n%s", got.Serve, reasons(got))
	}
	s.floor = trust.Floor{}
	s.set = s.set[:len(s.set)-1]
	if got := s.decide(); got.Serve != "" {
		t.Errorf("serves %s where nothing was accepted before", got.Serve)
	}
}

// TestWithdrawnForEver: a floor remembers a withdrawal after its statement is gone, for the channel alone whose policy
// let it be made.
func TestWithdrawnForEver(t *testing.T) {
	s := newScene(t, duties)
	other := s.doc.Channels["chat"]
	other.Withdraw = nil
	s.doc.Channels["other"] = other
	s.amend()
	release := s.version("1", 1)
	s.publication(release, "shipper", trust.Publication{Channel: "other", Epoch: 1})
	s.withdrawal(release, "warden", trust.OfRelease)
	f, changed := s.floor.Withdraw(s.decide(), s.policy, s.now)
	if !changed || len(f.Withdrawn) != 1 || len(s.floor.Withdrawn) != 0 {
		t.Fatalf("floor after the withdrawal: %+v, changed %v", f, changed)
	}
	s.floor, s.set = f, s.set[:len(s.set)-1]
	if _, again := f.Withdraw(s.decide(), s.policy, s.now); again {
		t.Error("a withdrawal that is remembered changes the floor again")
	}
	d := trust.Decide(s.policy, s.set, s.now, s.floor)
	if d.Channels["chat"].Serve != "" || d.Channels["other"].Serve != release {
		t.Errorf("chat serves %q and other %q, want nothing and the release", d.Channels["chat"].Serve, d.Channels["other"].Serve)
	}
}
