package catalog_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// soon is what a withdrawal or a new policy may take to bite here. A second is what it should take on a machine that does
// nothing else; this much is still far below the interval at which everything is looked at anyhow.
const soon = 5 * time.Second

// within is until with a deadline that counts.
func (s *site) within(d time.Duration, what string, ok func(catalog.Status) bool) catalog.Status {
	s.t.Helper()
	begun := time.Now()
	st := s.until(what, ok)
	took := time.Since(begun)
	if s.t.Logf("%s after %s", what, took); took > d {
		s.t.Errorf("%s took %s, want at most %s", what, took, d)
	}
	return st
}

// newDutySite serves release A and then B, by a policy that bob may withdraw by and that edit changes.
func newDutySite(t *testing.T, edit func(*trust.ChannelRules)) (s *site, a, b statement.ID) {
	t.Helper()
	s = newWorld(t)
	s.policy = s.SignPolicy(func(d *trust.Document) {
		d.Roles["revoker"] = trust.Role{Members: []string{trusttest.Bob}}
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "revoker"}
		edit(&rules)
		d.Channels["chat"] = rules
	})
	s.start(gib)
	a = s.release("a.gguf", 1, nil)
	s.untilServes(a)
	b = s.release("b.gguf", 2, nil)
	s.untilServes(b)
	return s, a, b
}

// A withdrawal stops the channel soon after its arrival, and is remembered.
func TestWithdrawalStops(t *testing.T) {
	s, _, b := newDutySite(t, func(*trust.ChannelRules) {})
	s.Withdraw(trusttest.Alice, b) // who may not
	s.Withdraw(trusttest.Bob, b)
	st := s.within(soon, "nothing serves", func(st catalog.Status) bool { return st.Release == "" })
	if _, err := s.cat.Acquire(t.Context(), "chat"); !errors.Is(err, catalog.ErrNotServing) {
		t.Errorf("Acquire = %v, want %v", err, catalog.ErrNotServing)
	}
	st = s.until("why", func(st catalog.Status) bool { return st.State == catalog.StateNone })
	if !strings.Contains(st.Error, "withdrawn") {
		t.Errorf("error = %q, want it to say that the release was withdrawn", st.Error)
	}
	want := trust.Withdrawn{Channel: "chat", Release: b}
	s.until("the withdrawal in the floor", func(catalog.Status) bool { return slices.Contains(s.state.Floor().Withdrawn, want) })
}

// Where the policy says so the release that served before comes back.
func TestWithdrawalFallsBack(t *testing.T) {
	s, a, b := newDutySite(t, func(c *trust.ChannelRules) { c.OnWithdrawal = "previous" })
	s.Withdraw(trusttest.Bob, b)
	s.within(soon, "the withdrawn release is gone", func(st catalog.Status) bool { return st.Release != string(b) })
	st := s.untilServes(a)
	if s.check(a, "I am version A."); !st.Fallback || st.Epoch != 2 {
		t.Errorf("status = %+v, want a fallback at epoch 2", st)
	}
	floor := s.state.Floor().Channels["chat"]
	if floor.Epoch != 2 || floor.Served[1] != b {
		t.Errorf("floor = %+v, want epoch 2 and the withdrawn release as the last", floor)
	}
	// A new release ends it.
	c := s.release("a.gguf", 3, func(d *trust.Descriptor) { d.Version = "3" })
	if st := s.untilServes(c); st.Fallback {
		t.Errorf("status = %+v, want no fallback any more", st)
	}
}

// A policy without one of the approvers reaches the gateway: the channel stops, falls back or stays frozen.
func TestOffboarding(t *testing.T) {
	for _, mode := range []string{"stop", "previous", "freeze"} {
		t.Run(mode, func(t *testing.T) {
			s, _, b := newDutySite(t, func(c *trust.ChannelRules) { c.OnLostQuorum = mode })
			s.policy = s.policyWithout(trusttest.Bob, mode)
			if err := s.cat.Update(t.Context(), s.inputs()); err != nil {
				t.Fatal(err)
			}
			if mode != "freeze" { // both releases rest on bob's approval
				s.within(soon, "nothing serves", func(st catalog.Status) bool { return st.Release == "" })
				return
			}
			s.within(soon, "frozen", func(st catalog.Status) bool { return strings.Contains(st.Error, "frozen") })
			s.check(b, "I am version B.")
			s.stop() // a gateway that starts anew brings nothing frozen up
			s.start(gib)
			s.until("nothing", func(st catalog.Status) bool {
				return st.State == catalog.StateNone && strings.Contains(st.Error, "approvals")
			})
		})
	}
}

// policyWithout is a policy in which an identity's statements count no more; who signs it is not this test's matter.
func (s *site) policyWithout(name, mode string) *trust.Policy {
	s.t.Helper()
	return s.SignPolicy(func(d *trust.Document) {
		identity := d.Identities[name]
		identity.State = trust.State{Compromised: time.Now().Add(-time.Hour)}
		d.Identities[name] = identity
		rules := d.Channels["chat"]
		rules.OnLostQuorum = mode
		d.Channels["chat"] = rules
	})
}
