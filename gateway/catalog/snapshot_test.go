package catalog_test

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// newUnsettledSite returns a site where something happens whenever a snapshot asks for the time, which it does in its
// middle. Its catalog has run, and no longer does, so that nobody else asks.
func newUnsettledSite(t *testing.T) (s *site, meanwhile *atomic.Pointer[func() error]) {
	t.Helper()
	s, meanwhile = newWorld(t), new(atomic.Pointer[func() error])
	s.now = func() time.Time {
		if act := meanwhile.Load(); act != nil {
			if err := (*act)(); err != nil {
				t.Error(err)
			}
		}
		return time.Now()
	}
	if err := s.accept(s.policy); err != nil {
		t.Fatal(err)
	}
	s.start(1 << 20)
	s.until("the catalog to run", func(catalog.Status) bool { return s.cat.Policy() != nil })
	s.stop()
	return s, meanwhile
}

// accept keeps the policy file and raises the floor, as the gateway does.
func (s *site) accept(p *trust.Policy) error {
	data, err := os.ReadFile(s.PolicyFile)
	if err != nil {
		return err
	}
	if err := s.state.KeepPolicy(p.Version(), data); err != nil {
		return err
	}
	return s.state.Raise(func(f trust.Floor) trust.Floor { return f.AcceptPolicy(p, time.Now()) })
}

// TestSnapshotIsOfOneMoment takes in a statement and accepts a policy in the middle of a snapshot.
func TestSnapshotIsOfOneMoment(t *testing.T) {
	s, meanwhile := newUnsettledSite(t)
	release := s.Release(s.models+"/a.gguf", nil)
	before, err := s.cat.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if policy, n := policyIn(t, before), len(before.Statements); policy != s.policy.Digest() || before.Floor.PolicyDigest != policy || n != 1 {
		t.Errorf("Snapshot = policy %s, floor of %s, %d statements, want both of %s and 1", policy, before.Floor.PolicyDigest, n, s.policy.Digest())
	}

	next := s.SignPolicy(func(d *trust.Document) { d.Version, d.Previous = 2, s.policy.Digest() })
	var approval *statement.Signed
	act := func() error {
		meanwhile.Store(nil)
		approval = s.Approve(release, trusttest.Alice, trust.Approval{})
		return s.accept(next)
	}
	meanwhile.Store(&act)
	after, err := s.cat.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if policy := policyIn(t, after); policy != next.Digest() || after.Floor.PolicyDigest != policy {
		t.Errorf("Snapshot = policy %s, floor of %s, want both of %s", policy, after.Floor.PolicyDigest, next.Digest())
	}
	if !slices.ContainsFunc(after.Statements, func(one *statement.Signed) bool { return one.ID() == approval.ID() }) {
		t.Error("Snapshot lacks a statement that was there before its floor")
	}
}

func policyIn(t *testing.T, s catalog.Snapshot) statement.ID {
	t.Helper()
	bundles, err := statement.ParseLines(s.Policy)
	if err != nil {
		t.Fatal(err)
	}
	return bundles[0].ID()
}

func TestSnapshotGivesUp(t *testing.T) {
	s, meanwhile := newUnsettledSite(t)
	rise := func() error {
		return s.state.Raise(func(f trust.Floor) trust.Floor {
			f.TimeHighWater = f.TimeHighWater.Add(time.Nanosecond)
			return f
		})
	}
	meanwhile.Store(&rise)
	if _, err := s.cat.Snapshot(); !errors.Is(err, catalog.ErrUnsettled) {
		t.Errorf("Snapshot while the floor keeps rising = %v, want ErrUnsettled", err)
	}
	meanwhile.Store(nil)
	if _, err := s.cat.Snapshot(); err != nil {
		t.Errorf("Snapshot of a floor at rest = %v, want nil", err)
	}
	if err := os.RemoveAll(s.Statements); err != nil {
		t.Fatal(err)
	}
	if _, err := s.cat.Snapshot(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Snapshot without the directory of statements = %v, want that it is missing", err)
	}
}

func TestSnapshotBeforeRun(t *testing.T) {
	s := newWorld(t)
	cat, err := catalog.New(catalog.Config{
		State: s.state, Trail: audittest.Open(t), Pool: seal.NewPool(1), NewBackend: s.backend, Now: s.now, Log: s.log(),
		Meter: metricnoop.Meter{}, Tracer: tracenoop.NewTracerProvider().Tracer(""),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cat.Snapshot(); !errors.Is(err, catalog.ErrNotRunning) {
		t.Errorf("Snapshot = %v, want ErrNotRunning", err)
	}
}
