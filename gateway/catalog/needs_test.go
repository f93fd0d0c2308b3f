package catalog_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestNeeds follows a channel through its life: at each step it may need just these releases.
func TestNeeds(t *testing.T) {
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C.", ChatTemplate: tinygguf.ChatTemplate})
	s.policy = s.SignPolicy(func(d *trust.Document) {
		d.Roles["revoker"] = trust.Role{Members: []string{trusttest.Bob}}
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "revoker"}
		d.Channels["chat"] = rules
	})
	s.start(gib)
	needs := catalog.NewNeeds(s.cat)
	names := map[statement.ID]string{}
	list := func(n *catalog.Needs) string {
		var all []string
		for _, need := range n.List() {
			all = append(all, fmt.Sprintf("%s %s %s", need.Channel, need.Why, names[need.Release.ID]))
		}
		return strings.Join(all, ", ")
	}
	check := func(what, want string) {
		t.Helper()
		s.until(what, func(catalog.Status) bool { return list(needs) == want })
	}

	check("nothing", "")
	a := s.release("a.gguf", 1, nil)
	names[a] = "a"
	starting := stage.next(t)
	check("a decided", "chat decided a")
	starting.verdict <- nil
	s.untilServes(a)
	check("a serving", "chat serving a")

	b := s.release("b.gguf", 2, nil)
	names[b] = "b"
	starting = stage.next(t)
	check("b decided", "chat serving a, chat decided b")
	starting.verdict <- nil
	s.untilServes(b)
	check("a previous", "chat serving b, chat previous a")

	c := s.Release(filepath.Join(s.models, "c.gguf"), nil)
	names[c] = "c"
	s.Approve(c, trusttest.Alice, trust.Approval{})
	s.Publish(c, "chat", 3)
	check("c pending", "chat serving b, chat previous a, chat pending c")
	if got, want := list(catalog.NewNeeds(s.cat)), list(needs); got != want {
		t.Errorf("needs that were asked once = %q, want %q", got, want)
	}

	s.Approve(c, trusttest.Bob, trust.Approval{})
	stage.next(t).verdict <- nil
	s.untilServes(c)
	check("only the last one before", "chat serving c, chat previous b")
	withdrawal := s.Withdraw(trusttest.Bob, b)
	check("not what was withdrawn", "chat serving c, chat previous a")
	s.removeHolding(withdrawal.Bundle())

	if n := s.removeHolding(s.statementOf(a).Bundle()); n != 1 {
		t.Fatalf("%d files hold the release, want 1", n)
	}
	if got := list(catalog.NewNeeds(s.cat)); got != "chat serving c" {
		t.Errorf("needs without the statement of a = %q, want c alone", got)
	}
}

// statementOf returns the statement of an id.
func (s *site) statementOf(id statement.ID) *statement.Signed {
	s.t.Helper()
	all, _, err := store.ReadStatements([]string{s.Statements})
	if err != nil {
		s.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(one *statement.Signed) bool { return one.ID() == id })
	if i < 0 {
		s.t.Fatalf("no statement %s", id)
	}
	return all[i]
}
