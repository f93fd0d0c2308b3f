package backendtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// A Suite says how the backends under test are made.
type Suite struct {
	New  func(t *testing.T, runtimeDir string) backends.Backend // makes one that is not started; called for each test
	Args map[string]string                                      // the runtime.args all are started with: one thread, one request at a time

	EmbedArgs map[string]string // those with which weights that make vectors are started

	// Refuses are the rows that this kind can't do, by name, each with what Start then says, or Chat.
	Refuses map[string]string

	// Templates in the language of this kind's releases: one that all are started with, empty where the model's own is
	// used, and one that shows the messages and then a hundred times x.
	ChatTemplate, PaddedTemplate string

	BrokenTemplate string // is in no language

	// Crash, if it is set, says that the runtime is not started by the backend, which then knows neither its process nor
	// its build: it kills it, has the backend notice, and starts it again.
	Crash func(t *testing.T, b backends.Backend)
}

func (s Suite) spec() backends.Spec { return backends.Spec{Args: s.Args, ChatTemplate: s.ChatTemplate} }

// endless never stops by itself: the context is so long that no test sees its end.
var endless = tinygguf.Config{Sentence: "on and on and on ", Endless: true, ChatTemplate: tinygguf.ChatTemplate, Context: 1 << 16}

// Run runs the whole suite.
func Run(t *testing.T, s Suite) {
	t.Run("Answers", s.answers)
	t.Run("Limits", s.limits)
	t.Run("ChatTemplate", s.chatTemplate)
	t.Run("Adapters", s.adapters)
	t.Run("Tools", s.tools)
	t.Run("Prompt", s.prompt)
	t.Run("Count", s.count)
	t.Run("Split", s.split)
	t.Run("SplitBroken", s.splitBroken)
	t.Run("Safetensors", s.safetensors)
	t.Run("Concurrent", s.concurrent)
	t.Run("Cancel", s.cancel)
	t.Run("ContextOverflow", s.contextOverflow)
	t.Run("Embed", s.embed)
	t.Run("EmbedOrChat", s.embedOrChat)
	t.Run("EmbedWhileCrashing", s.embedWhileCrashing)
	t.Run("Tamper", s.tamper)
	t.Run("Overwrite", s.overwrite)
	t.Run("StartRefuses", s.startRefuses)
	t.Run("RefusesArgs", s.refusesArgs)
	t.Run("RefusesTemplate", s.refusesTemplate)
	t.Run("StartGivenUp", s.startGivenUp)
	t.Run("States", s.states)
	t.Run("CrashWhileLoading", s.crashWhileLoading)
	t.Run("CrashWhileIdle", s.crashWhileIdle)
	t.Run("CrashWhileStreaming", s.crashWhileStreaming)
	t.Run("StopWhileStreaming", s.stopWhileStreaming)
}

// start makes a backend and starts it on a model. When the test ends it is stopped, and nothing of it may be left.
func (s Suite) start(t *testing.T, c tinygguf.Config) backends.Backend {
	t.Helper()
	b := s.New(t, t.TempDir())
	w := Seal(t, WriteModel(t, c))
	check(t, b.Start(t.Context(), w, s.spec()))
	// The backend has descriptors of its own; whatever happens from here on, it needs nothing of the caller's.
	check(t, w.Close())
	s.checkReady(t, b, 0)
	t.Cleanup(func() { stop(t, b) })
	return b
}

// stopPatience is what a backend may not need, whatever its runtime does: it kills one that does not end.
const stopPatience = 10 * time.Second

// stop stops a backend and checks that its process is gone and this one holds no sealed memory any more.
func stop(t *testing.T, b backends.Backend) {
	t.Helper()
	process := watch(t, b.Status().PID)
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := b.Stop(ctx); err != nil {
		t.Errorf("Stop() = %v", err)
	}
	if ctx.Err() != nil {
		t.Error("Stop() did not return before its context ended")
	}
	checkGone(t, b, process)
}

func checkGone(t *testing.T, b backends.Backend, process *pidfd) {
	t.Helper()
	if !process.ended(0) {
		t.Error("the runtime's process is still there")
	}
	if st := b.Status(); st.State != backends.Stopped && st.State != backends.Failed || st.PID != 0 {
		t.Errorf("status is %+v, want stopped or failed, without a process", st)
	}
	for _, held := range sealedDescriptors(t) {
		t.Errorf("descriptor of sealed memory left open: %s", held)
	}
}

// sealedDescriptors lists what this process holds open of sealed memory.
func sealedDescriptors(t *testing.T) (held []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, "/memfd:weighbridge") {
			held = append(held, name)
		}
	}
	return held
}

func (s Suite) checkReady(t *testing.T, b backends.Backend, restarts int) {
	t.Helper()
	st := b.Status()
	level, foreign := seal.Sealed, s.Crash != nil
	if foreign {
		level = seal.Attached
	}
	if st.State != backends.Ready || st.Level != level || st.Restarts != restarts || st.Since.IsZero() {
		t.Errorf("status is %+v, want ready after %d restarts, with level %s and time", st, restarts, level)
	}
	if foreign == (st.PID != 0) || foreign == strings.HasPrefix(st.Build, "sha256:") {
		t.Errorf("status is %+v, want process and build: %v", st, !foreign)
	}
	if st.Sandbox.Level == "" || st.Sandbox.Level != backends.SandboxFull && len(st.Sandbox.Missing) == 0 {
		t.Errorf("sandbox is %+v, want a level, and what it lacks", st.Sandbox)
	}
}

func checkAnswer(t *testing.T, b backends.Backend, req backends.ChatRequest, want string) (last backends.Chunk) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	got, last, err := Ask(ctx, b, req)
	if err != nil || got != want {
		t.Errorf("answer is %q, %v; want %q", got, err, want)
	}
	checkWhole(ctx, t, b, req, got, last)
	return last
}

// checkWhole checks that an answer is the same if it comes whole.
func checkWhole(ctx context.Context, t *testing.T, b backends.Backend, req backends.ChatRequest, pieces string, last backends.Chunk) {
	t.Helper()
	req.Whole = true
	begun := time.Now()
	got, end, err := Ask(ctx, b, req)
	if err != nil || got != pieces || end.FinishReason != last.FinishReason || !reflect.DeepEqual(end.Usage, last.Usage) {
		t.Errorf("whole answer is %q, %v, %+v; want %q, %+v", got, err, end, pieces, last)
	}
	if end.Since < 0 || end.Since > time.Since(begun) {
		t.Errorf("the first token of a whole answer was made %s ago, and it was asked for %s ago", end.Since, time.Since(begun))
	}
}

// checkAnswersNothing checks that a backend refuses whatever it is asked.
func checkAnswersNothing(t *testing.T, b backends.Backend, want error) {
	t.Helper()
	if _, _, err := Ask(t.Context(), b, Question("hello")); !errors.Is(err, want) {
		t.Errorf("Chat() = %v, want %v", err, want)
	}
	if _, err := b.Embed(t.Context(), backends.EmbedRequest{Inputs: []string{"hello"}}); !errors.Is(err, want) {
		t.Errorf("Embed() = %v, want %v", err, want)
	}
	if _, err := b.Count(t.Context(), Question("hello")); !errors.Is(err, want) {
		t.Errorf("Count() = %v, want %v", err, want)
	}
}

func (s Suite) answers(t *testing.T) {
	for _, model := range []tinygguf.Config{tinygguf.A, tinygguf.B} {
		b := s.start(t, model)
		for _, temperature := range []float64{0, 1, 2} {
			for _, text := range []string{"hello", "I am version", "Say:\n\"é漢🙂\" ", ""} {
				req := Question(text)
				req.Temperature = &temperature
				checkAnswer(t, b, req, model.Sentence)
			}
		}
		stop(t, b)
	}
}

// limits checks that the fields of a request mean what they say, and that tokens are counted.
func (s Suite) limits(t *testing.T) {
	b := s.start(t, tinygguf.A)
	var pieces []backends.Chunk
	check(t, b.Chat(t.Context(), Question("hello"), func(c backends.Chunk) error {
		pieces = append(pieces, c)
		return nil
	}))
	if len(pieces) < 3 {
		t.Errorf("answer came in %d chunks, want one for each token", len(pieces))
	}
	for i, c := range pieces {
		if isLast := i == len(pieces)-1; isLast != (c.FinishReason != "") || isLast != (c.Usage != nil) {
			t.Errorf("chunk %d of %d is %+v; want finish reason and usage in the last", i, len(pieces), c)
		}
	}
	whole := pieces[len(pieces)-1]
	if whole.FinishReason != "stop" || whole.Usage.PromptTokens == 0 || whole.Usage.CompletionTokens == 0 {
		t.Errorf("last chunk is %+v, want stop and both counts", whole)
	}
	// Every byte of a prompt is a token of its own.
	longer := checkAnswer(t, b, Question("hello world"), tinygguf.A.Sentence)
	if got, want := longer.Usage.PromptTokens-whole.Usage.PromptTokens, len(" world")+2; got != want {
		t.Errorf("a longer prompt has %d more tokens, want %d", got, want)
	}
	// The same again costs the same: nothing is shared between requests.
	if again := checkAnswer(t, b, Question("hello"), tinygguf.A.Sentence); *again.Usage != *whole.Usage {
		t.Errorf("usage is %+v the second time, %+v the first", again.Usage, whole.Usage)
	}

	one := Question("hello")
	one.MaxTokens = 1
	if last := checkAnswer(t, b, one, "I am"); last.FinishReason != "length" || last.Usage.CompletionTokens != 1 {
		t.Errorf("last chunk is %+v, want length and one token", last)
	}
	until := Question("hello")
	until.Stop = []string{"version"}
	checkAnswer(t, b, until, "I am ")
	seeded, seed, topP := Question("hello"), int64(-1), 0.5
	seeded.Seed, seeded.TopP = &seed, &topP
	checkAnswer(t, b, seeded, tinygguf.A.Sentence)
	unlimited := Question("hello")
	unlimited.MaxTokens = 0
	checkAnswer(t, b, unlimited, tinygguf.A.Sentence)
}

// chatTemplate checks that the release's template is used, by how many tokens a prompt then has.
func (s Suite) chatTemplate(t *testing.T) {
	bare := tinygguf.A
	bare.ChatTemplate = ""
	b := s.New(t, t.TempDir())
	w := Seal(t, WriteModel(t, bare))
	check(t, b.Start(t.Context(), w, backends.Spec{Args: s.Args, ChatTemplate: s.PaddedTemplate}))
	w.Close()
	defer stop(t, b)
	last := checkAnswer(t, b, Question("hello"), bare.Sentence)
	if got, want := last.Usage.PromptTokens, len("<s>")-2+len("hello")+100; got != want {
		t.Errorf("prompt has %d tokens, want %d", got, want)
	}
}

func (s Suite) concurrent(t *testing.T) {
	b := s.start(t, tinygguf.A)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for i := range 2 {
				checkAnswer(t, b, Question(fmt.Sprint("hello ", i)), tinygguf.A.Sentence)
			}
		})
	}
	all.Wait()
}

// cancel checks that an answer nobody waits for makes room at once: the model would go on for minutes.
func (s Suite) cancel(t *testing.T) {
	if s.Crash != nil {
		t.Skip("a runtime that was not started here may lose what it keeps for a caller that leaves: that it is told is tested beside it")
	}
	b := s.start(t, endless)
	forever := Question("hello")
	forever.MaxTokens = 0
	next := Question("hello")
	next.MaxTokens = 1

	ctx, cancel := context.WithCancel(t.Context())
	err := b.Chat(ctx, forever, func(backends.Chunk) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Chat() = %v, want %v", err, context.Canceled)
	}
	checkAnswer(t, b, next, "on and")

	errEnough := errors.New("enough")
	err = b.Chat(t.Context(), forever, func(backends.Chunk) error { return errEnough })
	if !errors.Is(err, errEnough) {
		t.Errorf("Chat() = %v, want %v", err, errEnough)
	}
	checkAnswer(t, b, next, "on and")

	// So is one that comes whole, of which nothing has come yet.
	whole := forever
	whole.Whole = true
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := Ask(short, b, whole); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Chat() of a whole answer = %v, want %v", err, context.DeadlineExceeded)
	}
	checkAnswer(t, b, next, "on and")

	// One that waits behind another is let go too.
	err = b.Chat(t.Context(), forever, func(backends.Chunk) error {
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, _, err := Ask(short, b, next); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Chat() behind another = %v, want %v", err, context.DeadlineExceeded)
		}
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("Chat() = %v, want %v", err, errEnough)
	}
	s.checkReady(t, b, 0)
}

func (s Suite) contextOverflow(t *testing.T) {
	small := tinygguf.A
	small.Context = 256
	b := s.start(t, small)
	_, _, err := Ask(t.Context(), b, Question(strings.Repeat("secret ", 1000)))
	if !errors.Is(err, backends.ErrInvalidRequest) || !strings.Contains(fmt.Sprint(err), "256") || strings.Contains(fmt.Sprint(err), "secret") {
		t.Errorf("Chat() = %v, want ErrInvalidRequest that names the limit and not the request", err)
	}
	checkAnswer(t, b, Question("hello"), small.Sentence)
}

func (s Suite) startRefuses(t *testing.T) {
	w := Seal(t, WriteModel(t, tinygguf.A))
	valid := s.spec()
	tests := []struct {
		name    string
		weights *seal.Weights
		spec    backends.Spec
		want    string
	}{
		{"no weights", nil, valid, "not sealed"},
		{"zero weights", &seal.Weights{}, valid, "not sealed"},
		{"another build", w, backends.Spec{Args: s.Args, ChatTemplate: s.ChatTemplate, Build: "sha256:" + strings.Repeat("0", 64)}, "digest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := s.New(t, t.TempDir())
			err := b.Start(t.Context(), tt.weights, tt.spec)
			if !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start() = %v, want ErrFailed with %q", err, tt.want)
			}
			if st := b.Status(); st.State != backends.Failed || !strings.Contains(st.Error, tt.want) {
				t.Errorf("status is %+v, want failed and why", st)
			}
			checkAnswersNothing(t, b, backends.ErrFailed)
			check(t, b.Stop(t.Context()))
		})
	}
	check(t, w.Close())
	if held := sealedDescriptors(t); len(held) != 0 {
		t.Errorf("refused starts left sealed memory open: %q", held)
	}
}

func (s Suite) startGivenUp(t *testing.T) {
	b := s.New(t, t.TempDir())
	w := Seal(t, WriteModel(t, tinygguf.A))
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Start(ctx, w, s.spec()); !errors.Is(err, context.Canceled) {
		t.Errorf("Start() = %v, want %v", err, context.Canceled)
	}
	check(t, w.Close())
	checkGone(t, b, watch(t, b.Status().PID))
}

func (s Suite) states(t *testing.T) {
	never := s.New(t, t.TempDir())
	if st := never.Status(); st.State != backends.None || st.Level == "" {
		t.Errorf("status is %+v, want state none and a level", st)
	}
	checkAnswersNothing(t, never, backends.ErrNotRunning)
	check(t, never.Stop(t.Context()))

	b := s.start(t, tinygguf.A)
	w := Seal(t, WriteModel(t, tinygguf.B))
	if err := b.Start(t.Context(), w, s.spec()); !errors.Is(err, backends.ErrStarted) {
		t.Errorf("second Start() = %v, want ErrStarted", err)
	}
	check(t, w.Close())
	checkAnswer(t, b, Question("hello"), tinygguf.A.Sentence)
	stop(t, b)
	stop(t, b)
	checkAnswersNothing(t, b, backends.ErrNotRunning)

	if s.Crash != nil {
		return
	}
	// The build that served may be pinned.
	pinned := s.New(t, t.TempDir())
	w = Seal(t, WriteModel(t, tinygguf.A))
	check(t, pinned.Start(t.Context(), w, backends.Spec{Args: s.Args, ChatTemplate: s.ChatTemplate, Build: b.Status().Build}))
	check(t, w.Close())
	stop(t, pinned)
}
