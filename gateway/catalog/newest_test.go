package catalog_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// newStagedGapSite serves A, by a policy that lets approvers withdraw, and has memory for so many bytes.
func newStagedGapSite(t *testing.T, memory int64) (s *site, stage *stage, a statement.ID, first *actor) {
	t.Helper()
	s, stage = newWorld(t), newStage()
	s.backend = stage.backend
	s.policy = s.SignPolicy(func(d *trust.Document) {
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "approver"}
		d.Channels["chat"] = rules
	})
	s.start(memory)
	a = s.release("a.gguf", 1, nil)
	first = stage.next(t)
	first.verdict <- nil
	s.untilServes(a)
	return s, stage, a, first
}

// TestWithdrawnIsNotBroughtBack: what was withdrawn while it was brought back never serves.
func TestWithdrawnIsNotBroughtBack(t *testing.T) {
	s, stage, a, _ := newStagedGapSite(t, room)
	s.release("b.gguf", 2, nil)
	stage.next(t).verdict <- errors.New("b never starts")
	back := stage.next(t)
	s.Withdraw(trusttest.Carol, a)
	s.until("the withdrawal", func(catalog.Status) bool { return len(s.state.Floor().Withdrawn) > 0 })
	back.verdict <- nil
	s.until("it is stopped", func(st catalog.Status) bool {
		if st.Release == string(a) {
			t.Error("what was withdrawn serves")
		}
		return back.state.Load() == backends.Stopped
	})
}

// TestFrozenIsNotBroughtBack: what is frozen may go on where it serves, and be brought up nowhere.
func TestFrozenIsNotBroughtBack(t *testing.T) {
	s, stage, a, _ := newStagedGapSite(t, room)
	s.release("b.gguf", 2, nil)
	b := stage.next(t)
	s.policy = s.policyWithout(trusttest.Bob, "freeze")
	if err := s.cat.Update(t.Context(), s.inputs()); err != nil {
		t.Fatal(err)
	}
	b.started(t)
	s.until("nothing serves", func(st catalog.Status) bool { return st.State == catalog.StateNone })
	select {
	case <-stage.starting:
		t.Error("a runtime was started for what is frozen")
	default:
	}
	if _, err := s.cat.Acquire(t.Context(), "chat"); !errors.Is(err, catalog.ErrNotServing) {
		t.Errorf("Acquire = %v, want %v: %s is frozen", err, catalog.ErrNotServing, a)
	}
}

// TestBroughtBackAtLast: what made room in vain comes back, even if that fails once.
func TestBroughtBackAtLast(t *testing.T) {
	s, stage, a, _ := newStagedGapSite(t, room)
	s.release("b.gguf", 2, nil)
	for _, why := range []string{"b does not start", "nor does a", "b does not start again"} {
		stage.next(t).verdict <- errors.New(why)
	}
	stage.next(t).verdict <- nil
	s.untilServes(a)
}

// TestNoGapInVain: there is no gap where what serves would not free the room, and there is one once it would.
func TestNoGapInVain(t *testing.T) {
	s := newWorld(t)
	stage := newStage()
	s.backend = stage.backend
	s.policy = s.SignPolicy(func(d *trust.Document) { d.Channels["other"] = d.Channels["chat"] })
	dir := filepath.Join(t.TempDir(), "audit")
	s.trail = audittest.OpenAt(t, dir)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case a := <-stage.starting:
				a.verdict <- nil
			case <-done:
				return
			}
		}
	}()
	s.start(room)
	both := s.inputs()
	both.Channels = []string{"chat", "other"}
	if err := s.cat.Update(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	a := s.release("a.gguf", 1, nil)
	s.Publish(a, "other", 1)
	s.untilServes(a)
	s.until("the other channel serves it too", func(catalog.Status) bool { return s.cat.Status()["other"].Release == string(a) })
	b := s.release("b.gguf", 2, nil)
	s.until("why not", func(st catalog.Status) bool { return strings.Contains(st.Error, "do not fit") })
	if slices.Contains(kinds(t, dir), audit.KindStop) {
		t.Error("what serves was stopped, though that frees nothing")
	}
	if err := s.cat.Update(t.Context(), s.inputs()); err != nil { // without the other channel
		t.Fatal(err)
	}
	s.untilServes(b)
}

// TestWithdrawnEndsItsRequests: a request on what was replaced ends once that is withdrawn, whatever is being brought up.
func TestWithdrawnEndsItsRequests(t *testing.T) {
	s, stage, a, first := newStagedGapSite(t, gib)
	held, err := s.cat.Acquire(t.Context(), "chat")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Done()
	b := s.release("b.gguf", 2, nil)
	stage.next(t).verdict <- nil
	s.untilServes(b)
	s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C."})
	s.release("c.gguf", 3, nil)
	stage.next(t) // it is being started, for long
	s.Withdraw(trusttest.Carol, a)
	s.within(soon, "the runtime of A has ended", func(catalog.Status) bool { return first.state.Load() == backends.Stopped })
}

// TestNothingIsAcceptedInVain: while the floor can't be written a newer release is published. The one in between is not in
// the floor, for it never served, and what serves goes on.
func TestNothingIsAcceptedInVain(t *testing.T) {
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	dir := filepath.Join(t.TempDir(), "audit")
	s.trail = audittest.OpenAt(t, dir)
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- nil
	s.untilServes(a)
	b := s.release("b.gguf", 2, nil)
	starting := stage.next(t)
	held, free := make(chan struct{}), make(chan struct{})
	go s.state.Raise(func(f trust.Floor) trust.Floor { close(held); <-free; return f })
	<-held
	starting.verdict <- nil
	of := func(kind audit.Kind) bool {
		return slices.ContainsFunc(records(t, dir), func(r audit.Record) bool { return r.Kind == kind && r.Release == b })
	}
	s.until("the record of the switch", func(catalog.Status) bool { return of(audit.KindSwitch) })
	s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C."})
	c := s.release("c.gguf", 3, nil)
	needs := catalog.NewNeeds(s.cat)
	s.until("the newest is decided", func(catalog.Status) bool {
		return slices.ContainsFunc(needs.List(), func(n catalog.Need) bool { return n.Why == catalog.WhyDecided && n.Release.ID == c })
	})
	close(free)
	last := stage.next(t)
	if st := s.cat.Status()["chat"]; st.Release != string(a) && st.Release != string(b) {
		t.Errorf("%q serves while the newest is brought up: %s", st.Release, st.Error)
	}
	if served := s.state.Floor().Channels["chat"].Served; slices.Contains(served, b) && s.cat.Status()["chat"].Release != string(b) {
		t.Errorf("the floor has %s as served, which never did", b)
	}
	last.verdict <- nil
	s.untilServes(c)
}

// A lateTrail has the record of a switch, once it is armed, and says so only when nobody waits any more.
type lateTrail struct {
	catalog.Trail
	armed, asked chan struct{}
}

func (l *lateTrail) Append(ctx context.Context, r audit.Record) (int64, error) {
	n, err := l.Trail.Append(context.WithoutCancel(ctx), r)
	if r.Kind == audit.KindSwitch {
		select {
		case <-l.armed:
			l.asked <- struct{}{}
			<-ctx.Done()
		default:
		}
	}
	return n, err
}

// TestWhatServesDidNotStop: a newer publication of what serves that comes to nothing is no stop.
func TestWhatServesDidNotStop(t *testing.T) {
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	dir := filepath.Join(t.TempDir(), "audit")
	trail := &lateTrail{audittest.OpenAt(t, dir), make(chan struct{}, 1), make(chan struct{})}
	s.trail = trail
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- nil
	s.untilServes(a)
	trail.armed <- struct{}{}
	s.Publish(a, "chat", 2)
	<-trail.asked
	s.release("b.gguf", 3, nil)
	stage.next(t) // so that the word before was given up
	if slices.Contains(kinds(t, dir), audit.KindStop) {
		t.Error("the log says that what serves has stopped")
	}
}

// TestWarmMakesRoomForARuntime: where a runtime does not start, what is kept warm goes, and then it is tried once more.
func TestWarmMakesRoomForARuntime(t *testing.T) {
	s, stage, a, first := newStagedGapSite(t, gib)
	b := s.release("b.gguf", 2, nil)
	stage.next(t).verdict <- nil
	s.untilServes(b)
	s.until("A is warm", func(st catalog.Status) bool { return st.Warm == string(a) })
	s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C."})
	c := s.release("c.gguf", 3, nil)
	stage.next(t).verdict <- errors.New("there is no memory for its cache")
	again := stage.next(t)
	if got := first.state.Load(); got != backends.Stopped {
		t.Errorf("the warm runtime is %v when the next is started again, want it gone", got)
	}
	again.verdict <- nil
	s.untilServes(c)
}
