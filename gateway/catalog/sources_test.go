package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestWithdrawalHoldsOnLaterChannels: a withdrawal that counted is kept as the statement that it is, so a channel that is
// added when its file is long gone does not serve what was withdrawn.
func TestWithdrawalHoldsOnLaterChannels(t *testing.T) {
	s, a, b := newDutySite(t, func(*trust.ChannelRules) {})
	withdrawal := s.Withdraw(trusttest.Bob, b)
	s.until("nothing serves", func(st catalog.Status) bool { return st.Release == "" })
	s.until("the withdrawal in the floor", func(catalog.Status) bool { return len(s.state.Floor().Withdrawn) > 0 })
	if n := s.removeHolding(withdrawal.Bundle()); n != 1 {
		t.Fatalf("%d files hold the withdrawal, want 1", n)
	}
	s.policy = s.SignPolicy(func(d *trust.Document) {
		d.Roles["revoker"] = trust.Role{Members: []string{trusttest.Bob}}
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "revoker"}
		d.Channels["chat"], d.Channels["later"] = rules, rules
	})
	s.Publish(b, "later", 1)
	in := s.inputs()
	in.Channels = []string{"chat", "later"}
	if err := s.cat.Update(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	s.Publish(a, "later", 2)
	s.until("the other release on the later channel", func(catalog.Status) bool { return s.cat.Status()["later"].Release == string(a) })
	for _, w := range s.state.Floor().Withdrawn {
		if w.Channel == "later" && w.Release == b {
			return
		}
	}
	t.Errorf("floor = %+v, want the release withdrawn from the later channel", s.state.Floor().Withdrawn)
}

// removeHolding removes the statement files that hold exactly these bytes, and returns how many.
func (s *site) removeHolding(bundle []byte) (n int) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Statements, "*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && string(data) == string(bundle) && os.Remove(file) == nil {
			n++
		}
	}
	return n
}

// TestOneDirectoryAway: where one directory of statements can't be read, a withdrawal in the other bites, what the first
// held counts still, and the operator is told.
func TestOneDirectoryAway(t *testing.T) {
	s, _, b := newDutySite(t, func(*trust.ChannelRules) {})
	other := filepath.Join(s.Dir, "other")
	in := s.inputs()
	in.Statements = append(in.Statements, other)
	if err := s.cat.Update(t.Context(), in); err != nil { // it is not there, and never was
		t.Fatal(err)
	}
	s.until("the problem", func(catalog.Status) bool { return strings.Contains(strings.Join(s.cat.Problems(), ""), other) })
	s.check(b, "I am version B.")
	if _, _, err := s.cat.Preview(nil, nil); err != nil {
		t.Errorf("Preview = %v, want what can be read", err)
	}
	s.Withdraw(trusttest.Bob, b)
	s.within(soon, "nothing serves", func(st catalog.Status) bool { return st.Release == "" })
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	s.until("no problem any more", func(catalog.Status) bool { return len(s.cat.Problems()) == 0 })
}
