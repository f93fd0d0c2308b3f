package catalog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// A stage makes backends that start when, and if, the test says so.
type stage struct {
	starting chan *actor
	level    seal.Level       // of all
	sandbox  backends.Sandbox // of all, once they run
	foreign  backends.Sandbox // of all, before that
}

func newStage() *stage { return &stage{starting: make(chan *actor, 16), level: seal.Sealed} }

func (s *stage) backend(string) (backends.Backend, error) {
	a := &actor{verdict: make(chan error, 1), stage: s}
	a.state.Store(backends.None)
	return a, nil
}

// next waits for a runtime that is being started.
func (s *stage) next(t *testing.T) *actor {
	t.Helper()
	select {
	case a := <-s.starting:
		return a
	case <-time.After(time.Minute):
		t.Fatal("no runtime is being started after a minute")
		return nil
	}
}

// An actor is a backend without a runtime.
type actor struct {
	stage   *stage
	verdict chan error   // what Start returns
	state   atomic.Value // backends.State
	ended   chan struct{}
	spec    backends.Spec // that it was started with
	weaker  atomic.Bool   // it was started again, without a sandbox
}

func (a *actor) Start(ctx context.Context, w *seal.Weights, spec backends.Spec) error {
	if !w.Valid() {
		return errors.New("weights are not sealed")
	}
	a.spec = spec
	a.ended = make(chan struct{})
	defer close(a.ended)
	a.stage.starting <- a
	select {
	case err := <-a.verdict:
		if err == nil {
			a.state.Store(backends.Ready)
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *actor) Chat(context.Context, backends.ChatRequest, func(backends.Chunk) error) error {
	return backends.ErrNotRunning
}

func (a *actor) Embed(context.Context, backends.EmbedRequest) (backends.Embeddings, error) {
	return backends.Embeddings{}, backends.ErrNotRunning
}

func (a *actor) Count(context.Context, backends.ChatRequest) (int, error) {
	return 0, backends.ErrNotRunning
}

func (a *actor) Status() backends.Status {
	if a.weaker.Load() {
		return backends.Status{State: a.state.Load().(backends.State), Level: seal.Sealed, Sandbox: backends.Sandbox{Level: backends.SandboxNone}}
	}
	st := backends.Status{Level: a.stage.level, State: a.state.Load().(backends.State), Sandbox: a.stage.foreign}
	if st.State == backends.Ready {
		st.Sandbox = a.stage.sandbox
	}
	return st
}

func (a *actor) Stop(context.Context) error { a.state.Store(backends.Stopped); return nil }

// started waits until the start has ended, however it did.
func (a *actor) started(t *testing.T) {
	t.Helper()
	select {
	case <-a.ended:
	case <-time.After(time.Minute):
		t.Fatal("the start was not given up after a minute")
	}
}

func newStagedSite(t *testing.T) (*site, *stage) {
	t.Helper()
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	s.start(gib)
	return s, stage
}

// TestNewerReleaseEndsARetry: what was wanted before, and fails again and again, must not keep a newer release away.
func TestNewerReleaseEndsARetry(t *testing.T) {
	s, stage := newStagedSite(t)
	s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- errors.New("this runtime never starts")
	retried := stage.next(t)
	b := s.release("b.gguf", 2, nil)
	retried.started(t)
	stage.next(t).verdict <- nil
	s.untilServes(b)
}

// TestOnlyWhatNobodyWaitsForYields: the first release of a channel starts at full speed, its successor beside it does not,
// and one does again that takes the place of a runtime that has failed.
func TestOnlyWhatNobodyWaitsForYields(t *testing.T) {
	s, stage := newStagedSite(t)
	start := func(what string, yields bool) *actor {
		t.Helper()
		a := stage.next(t)
		if a.spec.Yield != yields {
			t.Errorf("%s yields: %v, want %v", what, a.spec.Yield, yields)
		}
		a.verdict <- nil
		return a
	}
	a := s.release("a.gguf", 1, nil)
	start("the first release", false)
	s.untilServes(a)
	b := s.release("b.gguf", 2, nil)
	second := start("a release beside another", true)
	s.untilServes(b)
	second.state.Store(backends.Failed)
	start("what replaces a runtime that failed", false)
}

// TestExpiryStopsWhatServes while its successor is being prepared, and while that waits for its next try.
func TestExpiryStopsWhatServes(t *testing.T) {
	for _, state := range []catalog.State{catalog.StateLoading, catalog.StateFailed} {
		t.Run("successor "+string(state), func(t *testing.T) {
			s, stage := newWorld(t), newStage()
			s.backend = stage.backend
			var ahead atomic.Int64
			s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			s.start(gib)
			a := s.Release(filepath.Join(s.models, "a.gguf"), nil)
			s.Approve(a, trusttest.Alice, trust.Approval{})
			s.Approve(a, trusttest.Bob, trust.Approval{Expires: time.Now().Add(time.Hour)})
			s.Publish(a, "chat", 1)
			stage.next(t).verdict <- nil
			s.untilServes(a)

			s.release("b.gguf", 2, nil)
			successor := stage.next(t)
			if state == catalog.StateFailed {
				successor.verdict <- errors.New("this runtime never starts")
				s.until("an error", func(st catalog.Status) bool { return strings.Contains(st.Error, "never starts") })
			}
			ahead.Store(int64(2 * time.Hour))
			if err := os.WriteFile(filepath.Join(s.Statements, "wake.json"), nil, 0o600); err != nil { // or wait 10 s
				t.Fatal(err)
			}
			s.until("nothing", func(st catalog.Status) bool { return st.Release == "" })
			if _, err := s.cat.Acquire(t.Context(), "chat"); !errors.Is(err, catalog.ErrNotServing) {
				t.Errorf("Acquire = %v, want %v", err, catalog.ErrNotServing)
			}
		})
	}
}

// TestRestartIsOfWhatIsWanted: a runtime that failed for good is started again on the same weights, unless its release
// may be served no more; and the publication that it then serves by is in the floor.
func TestRestartIsOfWhatIsWanted(t *testing.T) {
	s, stage := newStagedSite(t)
	a := s.release("a.gguf", 1, nil)
	first := stage.next(t)
	first.verdict <- nil
	s.untilServes(a)

	s.Publish(a, "chat", 2) // heard of after the failure, mostly
	first.state.Store(backends.Failed)
	again := stage.next(t)
	again.verdict <- nil
	s.until("epoch 2", func(st catalog.Status) bool { return st.Epoch == 2 && st.State == catalog.StateReady })
	if got := s.state.Floor().Channels["chat"].Epoch; got != 2 {
		t.Errorf("floor is at epoch %d while epoch 2 serves", got)
	}

	again.state.Store(backends.Failed)
	last := stage.next(t)
	for _, name := range s.statements() {
		os.Remove(name)
	}
	last.started(t)
	s.until("nothing", func(st catalog.Status) bool { return st.Release == "" && st.State == catalog.StateNone })
}

// TestFailedRuntimeComesBack: what serves is brought up again when its runtime fails, though what is newer is wanted, and
// can't be.
func TestFailedRuntimeComesBack(t *testing.T) {
	s, stage := newStagedSite(t)
	a := s.release("a.gguf", 1, nil)
	first := stage.next(t)
	first.verdict <- nil
	s.untilServes(a)
	s.release("b.gguf", 2, func(d *trust.Descriptor) { d.Runtime.Args = map[string]string{"ctx-size": "512"} })
	first.state.Store(backends.Failed)
	again := stage.next(t)
	for ; again.spec.Args["ctx-size"] == "512"; again = stage.next(t) {
		again.verdict <- errors.New("this runtime never starts")
	}
	again.verdict <- nil
	st := s.until("A serves again", func(st catalog.Status) bool { return st.Release == string(a) && st.State == catalog.StateReady })
	if st.Epoch != 1 || s.state.Floor().Channels["chat"].Epoch != 1 {
		t.Errorf("A serves by epoch %d with the floor at %d, want 1", st.Epoch, s.state.Floor().Channels["chat"].Epoch)
	}

	// What is published while it comes back does not wait for the next try of the one before.
	again.state.Store(backends.Failed)
	for again = stage.next(t); again.spec.Args["ctx-size"] == "512"; again = stage.next(t) {
		again.verdict <- errors.New("this runtime never starts")
	}
	s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C."})
	c := s.release("c.gguf", 3, nil)
	again.started(t)
	stage.next(t).verdict <- nil
	s.untilServes(c)
}

func (s *site) statements() []string {
	names, err := filepath.Glob(filepath.Join(s.Statements, "*"))
	if err != nil || len(names) == 0 {
		s.t.Fatalf("statements = %v, %v, want some", names, err)
	}
	return names
}

// TestWhyNothingServesIsNotBuried: every channel gathers publications below its floor, and they are not the reason.
func TestWhyNothingServesIsNotBuried(t *testing.T) {
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	var ahead atomic.Int64
	s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	a := s.release("a.gguf", 1, nil)
	for epoch := range int64(20) {
		s.Publish(a, "chat", 2+epoch)
	}
	s.PublishAs(trusttest.Shipper, a, trust.Publication{Channel: "chat", Epoch: 30, Expires: time.Now().Add(time.Hour)})
	s.start(gib)
	stage.next(t).verdict <- nil
	s.until("epoch 30", func(st catalog.Status) bool { return st.Epoch == 30 && st.State == catalog.StateReady })
	ahead.Store(int64(2 * time.Hour))
	s.Publish(a, "chat", 22) // wakes the catalog
	st := s.until("nothing", func(st catalog.Status) bool { return st.State == catalog.StateNone && st.Release == "" })
	if !strings.Contains(st.Error, "the publication of epoch 30 expired") {
		t.Errorf("error = %q, want it to say that the publication of epoch 30 expired", st.Error)
	}
}

// TestSandboxOfARestart: what serves stops when its runtime was started again with less of a sandbox than the channel asks for.
func TestSandboxOfARestart(t *testing.T) {
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	stage.sandbox = backends.Sandbox{Level: backends.SandboxFull}
	s.policy = s.SignPolicy(func(d *trust.Document) {
		rules := d.Channels["chat"]
		rules.MinimumSandbox = "full"
		d.Channels["chat"] = rules
	})
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	first := stage.next(t)
	first.verdict <- nil
	s.untilServes(a)
	first.weaker.Store(true)
	again := stage.next(t)
	s.until("nothing", func(st catalog.Status) bool { return st.Release == "" })
	again.verdict <- nil
	s.untilServes(a)
}

// TestSandboxIsAskedFor: a runtime with less of a sandbox than the channel asks for is not started, and one that serves stops
// once the channel asks for more.
func TestSandboxIsAskedFor(t *testing.T) {
	s, stage := newStagedSite(t)
	stage.sandbox = backends.Sandbox{Level: backends.SandboxPartial, Missing: []string{"no network namespace"}}
	a := s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- nil
	s.untilServes(a)
	s.policy = s.SignPolicy(func(d *trust.Document) {
		rules := d.Channels["chat"]
		rules.MinimumSandbox = "full"
		d.Channels["chat"] = rules
	})
	if err := s.cat.Update(t.Context(), s.inputs()); err != nil {
		t.Fatal(err)
	}
	stage.next(t).verdict <- nil
	st := s.until("why not", func(st catalog.Status) bool { return st.State == catalog.StateFailed })
	if want := "the runtime's sandbox is partial, and the channel asks for full: no network namespace"; st.Release != "" || st.Error != want {
		t.Errorf("%q serves, %q, want nothing, %q", st.Release, st.Error, want)
	}
}
