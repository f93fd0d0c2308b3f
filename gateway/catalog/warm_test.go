package catalog_test

import (
	"syscall"
	"testing"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// newWarmSite serves B, and keeps A warm. PID is A's.
func newWarmSite(t *testing.T, memory int64) (s *site, a, b statement.ID, pid int) {
	t.Helper()
	s = newWorld(t)
	s.policy = s.SignPolicy(func(d *trust.Document) {
		rules := d.Channels["chat"]
		rules.Withdraw, rules.Rollback = &trust.Rule{Role: "approver"}, &trust.Rule{Role: "approver"}
		d.Channels["chat"] = rules
	})
	s.start(memory)
	a = s.release("a.gguf", 1, nil)
	pid = s.untilServes(a).PID
	b = s.release("b.gguf", 2, nil)
	s.untilServes(b)
	s.until("A is warm", func(st catalog.Status) bool { return st.Warm == string(a) })
	return s, a, b, pid
}

func (s *site) rollback(to statement.ID, epoch int64) {
	s.t.Helper()
	s.PublishAs(trusttest.Carol, to, trust.Publication{Channel: "chat", Epoch: epoch, Rollback: true, Reason: "it answers worse"})
}

// TestRollbackIsASwitch: what served before comes back by the same process, and is recorded like any other.
func TestRollbackIsASwitch(t *testing.T) {
	s, a, b, pid := newWarmSite(t, gib)
	s.rollback(a, 3)
	st := s.within(soon, "A serves again", func(st catalog.Status) bool { return st.Release == string(a) && st.Epoch == 3 })
	if st.PID != pid {
		t.Errorf("process %d serves, want %d", st.PID, pid)
	}
	s.check(a, "I am version A.")
	if got := s.state.Floor().Channels["chat"].Epoch; got != 3 {
		t.Errorf("the floor is at epoch %d, want 3", got)
	}
	s.rollback(b, 4)
	s.untilServes(b)
	s.check(b, "I am version B.")
}

// TestWarmEnds: what is kept warm goes once there is a reason to, and its process with it.
func TestWarmEnds(t *testing.T) {
	t.Run("a third release", func(t *testing.T) {
		s, _, b, pid := newWarmSite(t, gib)
		s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C."})
		c := s.release("c.gguf", 3, nil)
		s.untilServes(c)
		s.until("B is warm", func(st catalog.Status) bool { return st.Warm == string(b) })
		s.ended(pid)
	})
	t.Run("withdrawn", func(t *testing.T) {
		s, a, b, pid := newWarmSite(t, gib)
		s.Withdraw(trusttest.Carol, a)
		s.until("nothing is warm", func(st catalog.Status) bool { return st.Warm == "" })
		s.ended(pid)
		s.check(b, "I am version B.")
	})
	t.Run("its memory is needed", func(t *testing.T) {
		s, _, _, pid := newWarmSite(t, 8<<20) // room for two
		s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C."})
		c := s.release("c.gguf", 3, nil)
		s.untilServes(c)
		s.ended(pid)
		s.check(c, "I am version C.")
	})
	t.Run("its runtime died for good", func(t *testing.T) {
		s, a, _, pid := newWarmSite(t, gib)
		syscall.Kill(pid, syscall.SIGKILL)
		s.rollback(a, 3)
		s.untilServes(a)
		s.check(a, "I am version A.")
	})
	t.Run("the catalog ends", func(t *testing.T) {
		s, _, _, pid := newWarmSite(t, gib)
		s.stop()
		s.ended(pid)
	})
}

// ended waits until a process is gone.
func (s *site) ended(pid int) {
	s.t.Helper()
	s.until("the process has ended", func(catalog.Status) bool { return syscall.Kill(pid, 0) != nil })
}
