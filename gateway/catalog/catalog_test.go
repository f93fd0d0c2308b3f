package catalog_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

func TestMain(m *testing.M) {
	process.Hook()
	os.Exit(m.Run())
}

// A site is a signed world with models A and B on disk, a state directory and a catalog over real llama-server.
type site struct {
	*trusttest.World
	t       *testing.T
	models  string
	state   *store.State
	policy  *trust.Policy
	cat     *catalog.Catalog
	stop    func()
	sockets string
	backend func(kind string) (backends.Backend, error) // makes real ones, unless a test sets another
	now     func() time.Time
	lease   trust.Lease
	trail   catalog.Trail // one is opened if there is none
	meter   metric.Meter
	tracer  trace.Tracer
}

func newSite(t *testing.T, memory int64) *site {
	t.Helper()
	s := newWorld(t)
	s.start(memory)
	return s
}

// newWorld returns a site whose catalog does not run yet.
func newWorld(t *testing.T) *site {
	t.Helper()
	w := trusttest.New(t)
	s := &site{World: w, t: t, models: filepath.Join(w.Dir, "models"), policy: w.SignPolicy(nil)}
	if err := os.Mkdir(s.models, 0o755); err != nil {
		t.Fatal(err)
	}
	s.writeModel("a.gguf", tinygguf.A)
	s.writeModel("b.gguf", tinygguf.B)
	stateDir := filepath.Join(w.Dir, "state")
	if err := store.CreateState(stateDir); err != nil {
		t.Fatal(err)
	}
	state, err := store.OpenState(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	s.state = state
	t.Cleanup(func() { state.Close() })
	s.now, s.meter, s.tracer = time.Now, metricnoop.Meter{}, tracenoop.NewTracerProvider().Tracer("")
	s.backend = func(string) (backends.Backend, error) {
		return llamacpp.New(llamacpp.Config{Command: backendtest.LlamaServer(t), RuntimeDir: s.sockets, Log: s.log()})
	}
	return s
}

func (s *site) log() *slog.Logger { return slog.New(slog.NewTextHandler(s.t.Output(), nil)) }

func (s *site) writeModel(name string, c tinygguf.Config) string {
	s.t.Helper()
	path := filepath.Join(s.models, name)
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(tinygguf.Write(f, c), f.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.SignModel(path)
	return path
}

func (s *site) openTrail() catalog.Trail {
	if s.trail == nil {
		s.trail = audittest.Open(s.t)
	}
	return s.trail
}

// start runs a new catalog on the site, as a restarted gateway would.
func (s *site) start(memory int64) {
	s.t.Helper()
	var err error
	s.sockets = s.t.TempDir()
	s.cat, err = catalog.New(catalog.Config{
		State: s.state, Trail: s.openTrail(), Pool: seal.NewPool(memory), NewBackend: s.backend, Now: s.now, Log: s.log(),
		Meter: s.meter, Tracer: s.tracer,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { s.cat.Run(ctx, s.inputs()) })
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		done.Wait()
	}
	s.t.Cleanup(s.stop)
}

func (s *site) inputs() catalog.Inputs {
	return catalog.Inputs{Policy: s.policy, Statements: []string{s.Statements}, Weights: []string{s.models}, Channels: []string{"chat"}, Lease: s.lease}
}

// release signs, approves and publishes a model at an epoch.
func (s *site) release(model string, epoch int64, edit func(*trust.Descriptor)) statement.ID {
	s.t.Helper()
	id := s.Release(filepath.Join(s.models, model), func(d *trust.Descriptor) {
		d.Runtime.Args = map[string]string{"ctx-size": "256", "threads": "1"}
		d.Behaviour.ChatTemplate = tinygguf.ChatTemplate
		if edit != nil {
			edit(d)
		}
	})
	s.Approve(id, trusttest.Alice, trust.Approval{})
	s.Approve(id, trusttest.Bob, trust.Approval{})
	s.Publish(id, "chat", epoch)
	return id
}

// until waits for the channel's status to be as wanted.
func (s *site) until(what string, ok func(catalog.Status) bool) catalog.Status {
	s.t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st := s.cat.Status()["chat"]
		if ok(st) {
			return st
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("status = %+v after a minute, want %s", st, what)
		}
	}
}

func (s *site) untilServes(id statement.ID) catalog.Status {
	s.t.Helper()
	return s.until("release "+string(id), func(st catalog.Status) bool {
		return st.Release == string(id) && st.State == catalog.StateReady
	})
}

// check asks the channel and wants this answer from this release; it is what must hold after each step.
func (s *site) check(id statement.ID, want string) {
	s.t.Helper()
	serving, err := s.cat.Acquire(s.t.Context(), "chat")
	if err != nil {
		s.t.Fatalf("Acquire = %v, want release %s", err, id)
	}
	defer serving.Done()
	s.checkGrounds(serving)
	var answer strings.Builder
	req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "Who are you?"}}, MaxTokens: 32}
	err = serving.Chat(s.t.Context(), req, func(c backends.Chunk) error {
		answer.WriteString(c.Text)
		return nil
	})
	if err != nil || strings.TrimSpace(answer.String()) != want || serving.ID() != id {
		s.t.Errorf("answer = %q of %s, %v, want %q of %s", answer.String(), serving.ID(), err, want, id)
	}
}

const gib = 1 << 30

func TestNewPublicationReplacesTheOld(t *testing.T) {
	s := newSite(t, gib)
	if _, err := s.cat.Acquire(t.Context(), "other"); !errors.Is(err, catalog.ErrUnknownChannel) {
		t.Errorf("Acquire(other) = %v, want %v", err, catalog.ErrUnknownChannel)
	}
	s.until("nothing decided", func(st catalog.Status) bool { return strings.Contains(st.Error, "publication") })
	if _, err := s.cat.Acquire(t.Context(), "chat"); !errors.Is(err, catalog.ErrNotServing) {
		t.Errorf("Acquire(chat) = %v, want %v", err, catalog.ErrNotServing)
	}
	// Setting the clock back must revive nothing even where nothing was ever served.
	s.until("the time high-water mark is durable", func(catalog.Status) bool {
		floor, err := store.ReadFloor(filepath.Join(s.Dir, "state", store.FloorName))
		return err == nil && time.Since(floor.TimeHighWater) < time.Minute
	})

	a := s.release("a.gguf", 1, func(d *trust.Descriptor) { d.Warmup = trust.Warmup{Prompt: "Who?", Contains: "version A"} })
	first := s.untilServes(a)
	s.check(a, "I am version A.")
	if first.Level != "sealed" || first.Epoch != 1 {
		t.Errorf("status = %+v, want level sealed at epoch 1", first)
	}

	// A request that holds the old release finishes on it.
	held, err := s.cat.Acquire(t.Context(), "chat")
	if err != nil {
		t.Fatal(err)
	}
	b := s.release("b.gguf", 2, nil)
	s.untilServes(b)
	s.check(b, "I am version B.")
	if held.ID() != a {
		t.Errorf("held release = %s, want %s", held.ID(), a)
	}
	if err := held.Chat(t.Context(), backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "x"}}, MaxTokens: 8},
		func(backends.Chunk) error { return nil }); err != nil {
		t.Errorf("Chat on the replaced release = %v, want nil while it is held", err)
	}
	held.Done()
	if floor := s.state.Floor().Channels["chat"]; floor.Epoch != 2 || len(floor.Served) != 2 {
		t.Errorf("floor = %+v, want epoch 2 and both releases", floor)
	}

	// A gateway that restarts comes back to the decided release, not to the older publication beside it.
	s.stop()
	s.start(gib)
	s.untilServes(b)
	s.check(b, "I am version B.")
}

// TestBadPublicationChangesNothing breaks one thing of a newer publication per row: the old release must go on.
func TestBadPublicationChangesNothing(t *testing.T) {
	s := newSite(t, gib)
	a := s.release("a.gguf", 1, nil)
	s.untilServes(a)
	tests := []struct {
		name    string
		publish func(epoch int64)
		want    string
	}{
		{"one byte flipped", func(epoch int64) {
			path := s.writeModel("flipped.gguf", tinygguf.Config{Sentence: "I was altered."})
			flip(t, path, 1000)
			s.release("flipped.gguf", epoch, nil)
		}, "was altered"},
		{"truncated", func(epoch int64) {
			path := s.writeModel("short.gguf", tinygguf.Config{Sentence: "I was shortened."})
			if err := os.Truncate(path, 1000); err != nil {
				t.Fatal(err)
			}
			s.release("short.gguf", epoch, nil)
		}, "short.gguf"},
		{"weights gone", func(epoch int64) {
			path := s.writeModel("gone.gguf", tinygguf.Config{Sentence: "I went away."})
			s.release("gone.gguf", epoch, nil)
			os.Remove(path)
		}, "weights not found"},
		{"warm-up answers something else", func(epoch int64) {
			s.release("b.gguf", epoch, func(d *trust.Descriptor) { d.Warmup = trust.Warmup{Prompt: "Who?", Contains: "version C"} })
		}, "warm up"},
		{"runtime dies while loading", func(epoch int64) {
			path := filepath.Join(s.models, "garbage.gguf")
			if err := os.WriteFile(path, []byte("GGUF, not really"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.release("garbage.gguf", epoch, nil)
		}, "start runtime: "},
		{"runtime of another build", func(epoch int64) {
			s.release("b.gguf", epoch, func(d *trust.Descriptor) { d.Runtime.Build = "sha256:" + strings.Repeat("0", 64) })
		}, "want sha256:0000"}, // a text that no row before it leaves in the status
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.publish(int64(i + 2))
			st := s.until("error "+tt.want, func(st catalog.Status) bool { return strings.Contains(st.Error, tt.want) })
			if st.Release != string(a) || st.Epoch != 1 {
				t.Errorf("status = %+v, want release %s at epoch 1", st, a)
			}
			s.check(a, "I am version A.")
		})
	}
}

// TestReleaseBringsItsTemplate counts the tokens of a prompt: the tiny models have one for each byte.
func TestReleaseBringsItsTemplate(t *testing.T) {
	s := newSite(t, gib)
	const added = 150
	a := s.release("a.gguf", 1, func(d *trust.Descriptor) {
		d.Behaviour.ChatTemplate = strings.Repeat("x", added) + "{{ messages[0].content }}"
	})
	s.untilServes(a)
	serving, err := s.cat.Acquire(t.Context(), "chat")
	if err != nil {
		t.Fatal(err)
	}
	defer serving.Done()
	prompt := 0
	req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "hi"}}, MaxTokens: 8}
	err = serving.Chat(t.Context(), req, func(c backends.Chunk) error {
		if c.Usage != nil {
			prompt = c.Usage.PromptTokens
		}
		return nil
	})
	if err != nil || prompt < added {
		t.Errorf("prompt of %d tokens, %v, want at least the %d of the release's template", prompt, err, added)
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 1}, at); err != nil {
		t.Fatal(err)
	}
}

func TestFileAndProcessOutsideDoNotMatter(t *testing.T) {
	s := newSite(t, gib)
	a := s.release("a.gguf", 1, nil)
	before := s.untilServes(a)
	other, err := os.ReadFile(filepath.Join(s.models, "b.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.models, "a.gguf"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	s.check(a, "I am version A.")
	// With the file overwritten, only the sealed memory can give this answer again.
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("a healed runtime", func(st catalog.Status) bool {
		return st.State == catalog.StateReady && st.PID != 0 && st.PID != before.PID
	})
	s.check(a, "I am version A.")
}

func TestStatementsThatGoAwayStopTheChannel(t *testing.T) {
	s := newSite(t, gib)
	a := s.release("a.gguf", 1, nil)
	s.untilServes(a)
	entries, err := os.ReadDir(s.Statements)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		os.Remove(filepath.Join(s.Statements, e.Name()))
	}
	s.until("nothing", func(st catalog.Status) bool { return st.Release == "" && st.State == catalog.StateNone })
	if _, err := s.cat.Acquire(t.Context(), "chat"); !errors.Is(err, catalog.ErrNotServing) {
		t.Errorf("Acquire = %v, want %v", err, catalog.ErrNotServing)
	}
}

func TestNothingSwitchesWithoutARecord(t *testing.T) {
	s := newSite(t, gib)
	a := s.release("a.gguf", 1, nil)
	s.untilServes(a)
	if err := os.RemoveAll(filepath.Join(s.Dir, "state")); err != nil { // nothing can be written there from now on
		t.Fatal(err)
	}
	s.release("b.gguf", 2, nil)
	st := s.until("an error", func(st catalog.Status) bool { return strings.Contains(st.Error, "save floor") })
	if st.Release != string(a) {
		t.Errorf("release = %s, want %s: the switch could not be recorded", st.Release, a)
	}
	s.check(a, "I am version A.")
}

func TestMemoryBudget(t *testing.T) {
	s := newSite(t, 1<<20) // less than the model
	s.release("a.gguf", 1, nil)
	st := s.until("an error", func(st catalog.Status) bool { return st.State == catalog.StateFailed })
	if want := "do not fit in memory"; !strings.Contains(st.Error, want) {
		t.Errorf("error = %q, want %q", st.Error, want)
	}
}
