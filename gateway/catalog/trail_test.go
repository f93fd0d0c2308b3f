package catalog_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestTrail: what a channel goes through is in the log, in the order in which it happened.
func TestTrail(t *testing.T) {
	s := newWorld(t)
	dir := filepath.Join(t.TempDir(), "audit")
	s.trail = audittest.OpenAt(t, dir)
	s.policy = s.SignPolicy(func(d *trust.Document) {
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "approver"}
		d.Channels["chat"] = rules
	})
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	s.untilServes(a)
	s.release("a.gguf", 2, func(d *trust.Descriptor) { d.Warmup = trust.Warmup{Prompt: "Who are you?", Contains: "version Z"} })
	s.until("the second does not start", func(st catalog.Status) bool { return strings.Contains(st.Error, "version Z") })
	s.Withdraw(trusttest.Carol, a)
	s.until("nothing serves", func(st catalog.Status) bool { return st.Release == "" })
	want := []audit.Kind{audit.KindLoad, audit.KindSwitch, audit.KindLoad, audit.KindStop, audit.KindWithdrawal}
	var got []audit.Kind
	s.until("the records", func(catalog.Status) bool {
		got = kinds(t, dir)
		return slices.Contains(got, audit.KindStop) && slices.Contains(got, audit.KindWithdrawal)
	})
	for _, kind := range want {
		if !slices.Contains(got, kind) {
			t.Errorf("recorded %q, want %q in it", got, kind)
		}
	}
}

// kinds are those of the records in a log.
func kinds(t *testing.T, dir string) (all []audit.Kind) {
	t.Helper()
	_, _, err := audit.Read(dir, 0, func(_ int64, entry []byte) error {
		r, err := audit.ParseRecord(entry)
		all = append(all, r.Kind)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFullDisk: with no room for the state and the log a publication is refused with the reason, what serves goes on, and a
// withdrawal bites all the same; with room again all of it is recorded.
func TestFullDisk(t *testing.T) {
	s := newWorld(t)
	disk := crashtest.Mount(t)
	stateDir, logDir := filepath.Join(disk.Path(), "state"), filepath.Join(t.TempDir(), "audit")
	if err := store.CreateState(stateDir); err != nil {
		t.Fatal(err)
	}
	state, err := store.OpenState(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	s.state, s.trail = state, audittest.OpenAt(t, logDir)
	s.policy = s.SignPolicy(func(d *trust.Document) {
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "approver"}
		d.Channels["chat"] = rules
	})
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	s.untilServes(a)

	disk.Arm(crashtest.Fault{At: 1, Errno: unix.ENOSPC, Rest: true})
	b := s.release("b.gguf", 2, nil)
	s.until("the refusal", func(st catalog.Status) bool { return strings.Contains(st.Error, "no space left on device") })
	s.check(a, "I am version A.")
	s.Withdraw(trusttest.Carol, a)
	s.within(soon, "nothing of the first serves", func(st catalog.Status) bool { return st.Release != string(a) })

	disk.Heal()
	s.untilServes(b)
	s.until("the withdrawal in the floor", func(catalog.Status) bool { return len(state.Floor().Withdrawn) > 0 })
	s.until("its record", func(catalog.Status) bool { return slices.Contains(kinds(t, logDir), audit.KindWithdrawal) })
}

// A stuck trail takes no record before it is let go.
type stuck struct {
	catalog.Trail
	asked chan audit.Kind
	free  chan struct{}
}

func (s *stuck) Append(ctx context.Context, r audit.Record) (int64, error) {
	select {
	case s.asked <- r.Kind:
	default:
	}
	select {
	case <-s.free:
		return s.Trail.Append(ctx, r)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// TestStuckLog: while the log does not answer nothing new serves, and what is withdrawn stops all the same.
func TestStuckLog(t *testing.T) {
	s := newWorld(t)
	stage := newStage()
	s.backend = stage.backend
	s.policy = s.SignPolicy(func(d *trust.Document) {
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "approver"}
		d.Channels["chat"] = rules
	})
	trail := &stuck{audittest.Open(t), make(chan audit.Kind, 1), make(chan struct{}, 1)}
	s.trail = trail
	trail.free <- struct{}{}
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- nil
	s.untilServes(a)
	<-trail.asked
	b := s.release("b.gguf", 2, nil)
	stage.next(t).verdict <- nil
	if kind := <-trail.asked; kind != audit.KindSwitch {
		t.Fatalf("asked to record a %s, want a %s", kind, audit.KindSwitch)
	}
	s.Withdraw(trusttest.Carol, a)
	s.within(soon, "nothing of the first serves", func(st catalog.Status) bool { return st.Release == "" })
	if got := s.state.Floor().Channels["chat"].Epoch; got != 1 {
		t.Errorf("the floor is at epoch %d, want 1: nothing of epoch 2 is recorded", got)
	}
	close(trail.free)
	s.untilServes(b)
}
