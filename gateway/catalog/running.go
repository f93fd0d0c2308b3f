package catalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/fair"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A running release holds its sealed memory and its runtime until the last request on it is done.
type running struct {
	c           *Catalog
	release     statement.ID
	description *trust.Release
	memory      loaded
	backend     backends.Backend
	level       seal.Level    // of the weakest: weights, adapters, runtime
	loadTime    time.Duration // read, hash and seal
	startTime   time.Duration // runtime start and warm-up
	sandbox     string        // of the runtime, as it was started
	turns       *fair.Queue   // as many at a time as the runtime answers

	endEnlarging func() // and waits for that; nil before enlarge

	since       atomic.Pointer[time.Time] // it serves, or can
	epoch       atomic.Int64
	fallback    atomic.Bool // it serves in place of the accepted one
	publication atomic.Pointer[statement.ID]
	grounds     atomic.Pointer[trust.Grounds] // not nil once it serves

	mu       sync.Mutex
	inflight int64
	closing  bool
	idle     chan struct{} // closed when closing and nothing is in flight
}

// errStart means that a runtime did not start, of which the lack of memory that is nobody's weights is one reason.
var errStart = errors.New("start runtime")

// start turns a decided release into a running one: find, verify, seal, start, warm up. On an error nothing is left.
func (c *Catalog) start(ctx context.Context, p *progress, t target) (*running, error) {
	backend, err := c.newBackend(t.decision)
	if err != nil {
		return nil, err // before gigabytes were read
	}
	begun := c.cfg.Now()
	var memory loaded
	err = c.during(ctx, p, phaseRead, func(ctx context.Context) (err error) {
		memory, err = c.read(ctx, p, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	loadTime := c.cfg.Now().Sub(begun)
	r, err := c.launch(ctx, p, t, backend, memory)
	if err != nil {
		return nil, errors.Join(err, memory.close())
	}
	r.loadTime = loadTime
	return r, nil
}

// newBackend makes the runtime of a decided release, unless it is known already that the channel does not accept what it
// gives: then nothing is started, and nothing handed to it.
func (c *Catalog) newBackend(d trust.Channel) (backends.Backend, error) {
	backend, err := c.cfg.NewBackend(d.Release.Runtime.Kind)
	if err != nil {
		return nil, err
	}
	st := backend.Status()
	if !d.AcceptsLevel(string(st.Level)) {
		return nil, fmt.Errorf("the level of what the runtime serves is %q, and the channel asks for %s", st.Level, d.Level)
	}
	if st.Sandbox.Level != "" { // known before it starts
		if err := acceptSandbox(d, st.Sandbox); err != nil {
			return nil, err
		}
	}
	return backend, nil
}

// acceptSandbox says why a channel does not accept a sandbox.
func acceptSandbox(d trust.Channel, box backends.Sandbox) error {
	if d.AcceptsSandbox(string(box.Level)) {
		return nil
	}
	return fmt.Errorf("the runtime's sandbox is %s, and the channel asks for %s: %s", box.Level, d.Sandbox, strings.Join(box.Missing, "; "))
}

// launch starts a runtime on sealed memory, which it keeps if it returns no error, and asks it the release's warm-up prompt.
func (c *Catalog) launch(ctx context.Context, p *progress, t target, backend backends.Backend, memory loaded) (*running, error) {
	d := t.decision
	begun := c.cfg.Now()
	spec := memory.spec(d.Release)
	spec.Yield = c.serves(p.channel)
	err := c.during(ctx, p, phaseStart, func(ctx context.Context) error { return backend.Start(ctx, memory.weights, spec) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errStart, err), stopBackend(backend))
	}
	st := backend.Status()
	if err := acceptSandbox(d, st.Sandbox); err != nil {
		return nil, errors.Join(err, stopBackend(backend))
	}
	err = c.during(ctx, p, phaseWarmUp, func(ctx context.Context) error { return warmUp(ctx, backend, d.Release.Warmup) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("warm up: %w", err), stopBackend(backend))
	}
	if backend.Status().GaveBack {
		if err := memory.discard(); err != nil {
			return nil, errors.Join(fmt.Errorf("give back sealed weights: %w", err), stopBackend(backend))
		}
	}
	now := c.cfg.Now()
	r := &running{
		c: c, release: d.Serve, description: d.Release, memory: memory, backend: backend,
		level:     seal.Level(trust.WeakestLevel(string(memory.level()), string(st.Level))),
		startTime: now.Sub(begun), sandbox: string(st.Sandbox.Level), idle: make(chan struct{}),
		turns: fair.NewQueue(fair.Config{Slots: slots(d.Release), Places: maxQueued, Patience: queueLimit}),
	}
	r.since.Store(&now)
	r.publication.Store(new(statement.ID)) // and epoch 0: no publication was recorded for it yet
	return r, nil
}

// serves reports whether a channel answers its callers now, so that they wait for nothing that is being started.
func (c *Catalog) serves(name string) bool {
	ch := (*c.channels.Load())[name]
	if ch == nil {
		return false
	}
	r := ch.current.Load()
	return r != nil && r.backend.Status().State == backends.Ready
}

// warmUpTokens bounds the answer to a warm-up prompt.
const warmUpTokens = 64

// warmUp asks the release's own first question, or has it embedded where the release does not chat. The answer is checked,
// and never logged.
func warmUp(ctx context.Context, b backends.Backend, w trust.Warmup) error {
	if w.Prompt == "" {
		return nil
	}
	var answer strings.Builder
	zero := 0.0
	req := backends.ChatRequest{
		Messages:    []backends.Message{{Role: "user", Content: w.Prompt}},
		MaxTokens:   warmUpTokens,
		Temperature: &zero,
	}
	err := b.Chat(ctx, req, func(chunk backends.Chunk) error {
		answer.WriteString(chunk.Text)
		return nil
	})
	if errors.Is(err, backends.ErrUnsupported) && w.Contains == "" {
		_, err = b.Embed(ctx, backends.EmbedRequest{Inputs: []string{w.Prompt}})
		return err
	}
	if err != nil {
		return err
	}
	if !strings.Contains(answer.String(), w.Contains) {
		return fmt.Errorf("the answer does not contain %q, which the release says it does", w.Contains)
	}
	return nil
}

func stopBackend(b backends.Backend) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	return b.Stop(ctx)
}

// suits reports whether a decision's channel accepts how r is guarded and confined, which a restart may have changed.
func (r *running) suits(d trust.Channel) bool {
	box := r.sandbox
	if now := r.backend.Status().Sandbox.Level; now != "" { // else there is none now
		box = string(now)
	}
	return d.AcceptsLevel(string(r.level)) && d.AcceptsSandbox(box)
}

const (
	// maxQueued is how many requests may wait for one runtime; more are refused, and may come again.
	maxQueued = 256
	// queueLimit is how long one may wait: longer than most answers take, and shorter than callers have patience for.
	queueLimit = time.Minute
)

// slots is how many requests a release's runtime answers at a time. More would wait inside of it, where all callers stand
// in one line. Of a runtime that others started it is not known; one is Ollama's own default.
func slots(r *trust.Release) int {
	if n, err := strconv.Atoi(r.Runtime.Args["parallel"]); err == nil && n > 0 {
		return n
	}
	return 1
}

// acquire adds a request, unless r is being retired.
func (r *running) acquire() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return false
	}
	r.inflight++
	return true
}

func (r *running) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inflight--
	if r.closing && r.inflight == 0 {
		close(r.idle)
	}
}

func (r *running) requests() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inflight
}

// close lets no request in any more, and has those go elsewhere that only wait.
func (r *running) close() {
	r.turns.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closing = true
	if r.inflight == 0 {
		close(r.idle)
	}
}

// drain lets requests finish for as long as limit and ctx, once r is closed. It is an error if some did not.
func (r *running) drain(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-r.idle:
		return nil
	case <-ctx.Done():
		r.c.cfg.Log.Warn("requests were interrupted", "release", r.release, "requests", r.requests(), "err", ctx.Err())
		return ctx.Err()
	}
}

// enlarge begins to move sealed weights into huge pages, while they serve already: no load waits for that.
func (r *running) enlarge() {
	if r.level != seal.Sealed || r.backend.Status().GaveBack || r.endEnlarging != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	r.endEnlarging = func() {
		cancel()
		done.Wait()
	}
	done.Go(func() {
		begun := time.Now()
		huge := r.memory.enlarge(ctx)
		if ctx.Err() == nil {
			r.c.cfg.Log.Info("weights are settled", "release", r.release, "bytes", r.memory.size(), "hugeBytes", huge,
				"seconds", time.Since(begun).Seconds())
		}
	})
}

// end stops the runtime at once and lets the memory go.
func (r *running) end() error {
	var errs []error
	if err := stopBackend(r.backend); err != nil {
		errs = append(errs, fmt.Errorf("stop the runtime: %w", err))
	}
	if r.endEnlarging != nil {
		r.endEnlarging()
	}
	if err := r.memory.close(); err != nil {
		errs = append(errs, fmt.Errorf("let sealed weights go: %w", err))
	}
	return errors.Join(errs...)
}

// discard is end of what did not come to serve.
func (r *running) discard() {
	if err := r.end(); err != nil {
		r.c.cfg.Log.Error("release was not ended cleanly", "release", r.release, "err", err)
	}
}

// Serving is one request's hold on a running release. Done must be called once.
type Serving struct {
	channel string
	running *running
	once    sync.Once
}

// Done lets go.
func (s *Serving) Done() { s.once.Do(s.running.done) }

// Channel returns the channel's name.
func (s *Serving) Channel() string { return s.channel }

// ID returns the id of the release that answers.
func (s *Serving) ID() statement.ID { return s.running.release }

// Release returns the release that answers. It must not be changed.
func (s *Serving) Release() *trust.Release { return s.running.description }

// Weights returns the root digest of the weights in memory.
func (s *Serving) Weights() string { return s.running.memory.weights.Root() }

// Level returns how the weights and adapters are guarded, the weakest of them, and at most what the runtime guarantees.
func (s *Serving) Level() seal.Level { return s.running.level }

// Embed has the runtime make vectors; see [backends.Backend].
func (s *Serving) Embed(ctx context.Context, req backends.EmbedRequest) (backends.Embeddings, error) {
	return s.running.backend.Embed(ctx, req)
}

// Enter waits for the caller's turn at the runtime, which lasts until leave; see [fair.Queue.Enter]. If it returns
// [fair.ErrClosed] another release may serve the channel by now.
func (s *Serving) Enter(ctx context.Context, caller string) (leave func(), err error) {
	return s.running.turns.Enter(ctx, caller)
}

// Count has the runtime count tokens; see [backends.Backend].
func (s *Serving) Count(ctx context.Context, req backends.ChatRequest) (int, error) {
	return s.running.backend.Count(ctx, req)
}

// Chat asks the runtime; see [backends.Backend].
func (s *Serving) Chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	return s.running.backend.Chat(ctx, req, emit)
}
