package catalog_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
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

// records returns those in a log.
func records(t *testing.T, dir string) (all []audit.Record) {
	t.Helper()
	_, _, err := audit.Read(dir, 0, func(_ int64, entry []byte) error {
		r, err := audit.ParseRecord(entry)
		all = append(all, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// kinds are those of the records in a log.
func kinds(t *testing.T, dir string) (all []audit.Kind) {
	t.Helper()
	for _, r := range records(t, dir) {
		all = append(all, r.Kind)
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

// A stuck trail takes no record of a switch before it is let go.
type stuck struct {
	catalog.Trail
	asked chan struct{}
	free  chan struct{}
}

func (s *stuck) Append(ctx context.Context, r audit.Record) (int64, error) {
	if r.Kind != audit.KindSwitch {
		return s.Trail.Append(ctx, r)
	}
	select {
	case s.asked <- struct{}{}:
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
	trail := &stuck{audittest.Open(t), make(chan struct{}, 1), make(chan struct{}, 1)}
	s.trail = trail
	trail.free <- struct{}{}
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- nil
	s.untilServes(a)
	<-trail.asked
	b := s.release("b.gguf", 2, nil)
	stage.next(t).verdict <- nil
	<-trail.asked
	s.Withdraw(trusttest.Carol, a)
	s.within(soon, "nothing of the first serves", func(st catalog.Status) bool { return st.Release == "" })
	if got := s.state.Floor().Channels["chat"].Epoch; got != 1 {
		t.Errorf("the floor is at epoch %d, want 1: nothing of epoch 2 is recorded", got)
	}
	close(trail.free)
	s.untilServes(b)
}

// TestStatementsAreRecorded: each statement is recorded once as accepted or refused, and again when that changes; a restart
// repeats nothing.
func TestStatementsAreRecorded(t *testing.T) {
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	dir := filepath.Join(t.TempDir(), "audit")
	s.trail = audittest.OpenAt(t, dir)
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	s.Approve(a, "nobody", trust.Approval{})
	if err := os.WriteFile(filepath.Join(s.Statements, "torn.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	stage.next(t).verdict <- nil
	s.untilServes(a)
	judged := func() (accepted, refused []string) {
		for _, r := range records(t, dir) {
			switch r.Kind {
			case audit.KindStatementAccepted:
				accepted = append(accepted, r.Identity)
			case audit.KindStatementRefused:
				refused = append(refused, r.Rule)
			}
		}
		slices.Sort(accepted)
		slices.Sort(refused)
		return accepted, refused
	}
	wantAccepted := []string{trusttest.Alice, trusttest.Bob, trusttest.Shipper, trusttest.Trainer, trusttest.Trainer}
	wantRefused := []string{trust.RuleSignature, trust.RuleUnknownIdentity}
	until := func(what string) {
		t.Helper()
		s.until(what, func(catalog.Status) bool {
			accepted, refused := judged()
			return slices.Equal(accepted, wantAccepted) && slices.Equal(refused, wantRefused)
		})
	}
	until("each is recorded")
	s.stop()
	s.start(gib)
	stage.next(t).verdict <- nil
	s.untilServes(a)

	// Bob goes: what he signed counts no more.
	s.policy = s.SignPolicy(func(d *trust.Document) {
		d.Identities[trusttest.Bob] = trust.Identity{Keys: d.Identities[trusttest.Bob].Keys, State: trust.State{Compromised: time.Now().Add(-time.Hour)}}
	})
	if err := s.cat.Update(t.Context(), s.inputs()); err != nil {
		t.Fatal(err)
	}
	wantRefused = []string{trust.RuleLifecycle, trust.RuleSignature, trust.RuleUnknownIdentity}
	until("bob's is refused, and nothing is recorded again")
}

// TestNobodysRefusalsAreBounded: who can write into a directory of statements does not fill the log's disk by that.
func TestNobodysRefusalsAreBounded(t *testing.T) {
	const bound = 100
	s := newWorld(t)
	s.backend = newStage().backend
	dir := filepath.Join(t.TempDir(), "audit")
	s.trail = audittest.OpenAt(t, dir)
	for n := range bound + 20 {
		if err := os.WriteFile(filepath.Join(s.Statements, fmt.Sprintf("torn-%d.json", n)), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.start(gib)
	count := func(kind audit.Kind) (n int) {
		for _, k := range kinds(t, dir) {
			if k == kind {
				n++
			}
		}
		return n
	}
	s.until("the first are recorded", func(catalog.Status) bool { return count(audit.KindStatementRefused) >= bound })
	s.Approve(statement.ID("sha256:"+strings.Repeat("1", 64)), trusttest.Alice, trust.Approval{})
	s.until("what counts is recorded all the same", func(catalog.Status) bool { return count(audit.KindStatementAccepted) == 1 })
	if n := count(audit.KindStatementRefused); n != bound {
		t.Errorf("%d refusals are recorded within an hour, want %d", n, bound)
	}
}
