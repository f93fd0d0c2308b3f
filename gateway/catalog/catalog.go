// Package catalog knows which release serves each channel.
//
// The one rule: what serves a channel changes only after its replacement was decided, verified, started and recorded;
// any failure before that leaves the old release serving. Each channel has one goroutine that alone changes it, and
// readers take what it published last without waiting.
package catalog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

var (
	// ErrUnknownChannel means that this gateway has no such channel. Callers must not be told it from a refusal.
	ErrUnknownChannel = errors.New("unknown channel")
	// ErrNotServing means that the channel serves nothing now. The text says why, for operators: retry later.
	ErrNotServing = errors.New("channel is not serving")
)

// Config is what a [Catalog] needs for its whole life. All fields are required.
type Config struct {
	State      *store.State
	Trail      Trail
	NewBackend func(kind string) (backends.Backend, error) // a fresh backend for one release
	Pool       *seal.Pool                                  // the memory for the weights of all channels
	Now        func() time.Time
	Log        *slog.Logger
	Meter      metric.Meter
	Tracer     trace.Tracer
}

// Inputs are what may change while the catalog runs. They are replaced as a whole.
type Inputs struct {
	Policy     *trust.Policy
	Statements []string // directories, watched
	Weights    []string // directories
	Channels   []string // to be served
	Lease      trust.Lease
}

// decide is the decision, as the site's lease leaves it.
func (in *Inputs) decide(l *trust.Ledger, floor trust.Floor, now time.Time) trust.Decision {
	return in.Lease.Apply(l.Decide(now, floor), floor, now)
}

// A Catalog maps channels to running releases. Make one with [New]; its methods may be called concurrently.
type Catalog struct {
	cfg     Config
	metrics metrics
	updates chan Inputs

	channels atomic.Pointer[map[string]*channel] // immutable once published
	shown    atomic.Pointer[Inputs]              // what Run works with
	unread   atomic.Pointer[string]              // why directories of statements can't be read

	// Owned by Run.
	inputs   Inputs
	files    store.Statements
	set      []*statement.Signed        // as last read
	ledger   *trust.Ledger              // of the policy in inputs
	told     map[string]string          // what is wrong with each bad file, as logged
	kept     map[[sha256.Size]byte]bool // bundles of withdrawals that the state keeps
	next     time.Time                  // when something ends on which a decision rests; zero: nothing does
	last     map[string]trust.Channel
	recorder recorder                 // of how statements are judged
	unsaved  bool                     // a withdrawal may be in the floor and yet not be durable
	noted    map[trust.Withdrawn]bool // withdrawals that are recorded

	cooling chan struct{} // held by who has warm releases go
	active  sync.WaitGroup
}

// New returns a catalog that serves nothing until Run.
func New(cfg Config) (*Catalog, error) {
	var missing []error
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			missing = append(missing, fmt.Errorf("catalog: %s is required", v.Type().Field(i).Name))
		}
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	m, err := newMetrics(cfg.Meter)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c := &Catalog{
		cfg: cfg, metrics: m, updates: make(chan Inputs), told: map[string]string{}, kept: map[[sha256.Size]byte]bool{},
		last: map[string]trust.Channel{}, noted: map[trust.Withdrawn]bool{}, cooling: make(chan struct{}, 1),
	}
	c.recorder = newRecorder(cfg.Trail, func(err error) { cfg.Log.Warn("audit log has not all statements yet", "err", err) })
	c.channels.Store(&map[string]*channel{})
	if err := c.observe(cfg.Meter); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return c, nil
}

// Run serves what the statements decide until ctx ends, then stops every runtime. It is called once.
func (c *Catalog) Run(ctx context.Context, in Inputs) {
	ctx, stop := context.WithCancel(ctx)
	defer c.active.Wait()
	defer stop()
	c.active.Go(func() { c.recorder.run(ctx) })
	for next := &in; next != nil; {
		next = c.follow(ctx, *next)
	}
}

// Update replaces the inputs of a running catalog. What serves goes on unless the new inputs decide otherwise.
func (c *Catalog) Update(ctx context.Context, in Inputs) error {
	select {
	case c.updates <- in:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow acts on one set of inputs until it is replaced, or returns nil when ctx ends.
func (c *Catalog) follow(ctx context.Context, in Inputs) (next *Inputs) {
	c.inputs = in
	c.shown.Store(&in)
	c.ledger = trust.NewLedger(in.Policy)
	c.publishChannels(ctx)
	changed := make(chan struct{}, 1)
	watching, stop := context.WithCancel(ctx)
	wait := store.WatchStatements(watching, in.Statements, func() {
		select {
		case changed <- struct{}{}:
		default: // a change is pending already
		}
	})
	defer wait()
	defer stop()
	for {
		c.decide()
		select {
		case <-ctx.Done():
			return nil
		case in := <-c.updates:
			return &in
		case <-changed:
		case <-c.ends():
		}
	}
}

// ends fires when the next thing ends on which a decision rests.
func (c *Catalog) ends() <-chan time.Time {
	if c.next.IsZero() {
		return nil
	}
	return time.After(max(c.next.Sub(c.cfg.Now()), time.Millisecond))
}

// endsAt notes when something ends that has not yet.
func (c *Catalog) endsAt(at, now time.Time) {
	if at.After(now) && (c.next.IsZero() || at.Before(c.next)) {
		c.next = at
	}
}

// publishChannels starts a goroutine for each new channel and stops those of channels that are served no more.
func (c *Catalog) publishChannels(ctx context.Context) {
	old := *c.channels.Load()
	all := make(map[string]*channel, len(c.inputs.Channels))
	for _, name := range c.inputs.Channels {
		if all[name] = old[name]; all[name] == nil {
			own, stop := context.WithCancel(ctx)
			all[name] = newChannel(c, name, stop)
			c.active.Go(func() { all[name].run(own) })
		}
	}
	c.channels.Store(&all)
	for name, ch := range old {
		if all[name] == nil {
			if r := ch.current.Load(); r != nil {
				ch.noteStop(r, "the configuration names this channel no more")
			}
			ch.stop()
			delete(c.last, name)
		}
	}
}

// Acquire returns the release that serves the channel, held until Done is called. It waits, within limits, where one release
// can be replaced by another only with a gap between them.
func (c *Catalog) Acquire(ctx context.Context, name string) (*Serving, error) {
	ch := (*c.channels.Load())[name]
	if ch == nil {
		return nil, fmt.Errorf("channel %q: %w", name, ErrUnknownChannel)
	}
	for {
		r := ch.current.Load()
		if r == nil {
			if err := ch.await(ctx); err != nil {
				return nil, fmt.Errorf("channel %q: %w", name, err)
			}
			continue
		}
		// What was retired or replaced since it was looked for, and perhaps kept warm, gets no new request.
		if r.acquire() {
			if ch.current.Load() == r {
				return &Serving{channel: name, running: r}, nil
			}
			r.done()
		}
	}
}

// Channels returns the names of all channels, sorted.
func (c *Catalog) Channels() []string {
	return slices.Sorted(maps.Keys(*c.channels.Load()))
}

// Status returns the state of every channel, by name.
func (c *Catalog) Status() map[string]Status {
	all := map[string]Status{}
	for name, ch := range *c.channels.Load() {
		all[name] = ch.status()
	}
	return all
}

// Ready reports whether a channel answers.
func (c *Catalog) Ready() bool {
	for _, ch := range *c.channels.Load() {
		if r := ch.current.Load(); r != nil && r.backend.Status().State == backends.Ready {
			return true
		}
	}
	return false
}

// Runtimes returns the runtimes that are there for each channel, by its name.
func (c *Catalog) Runtimes() map[string][]Runtime {
	all := map[string][]Runtime{}
	for name, ch := range *c.channels.Load() {
		all[name] = ch.runtimes()
	}
	return all
}

// Policy returns the trust policy in force, nil before Run.
func (c *Catalog) Policy() *trust.Policy {
	if in := c.shown.Load(); in != nil {
		return in.Policy
	}
	return nil
}

// ErrNotRunning means that Run was not called yet.
var ErrNotRunning = errors.New("the catalog does not run yet")

// Preview decides by the statements as they lie there now, and again with more of them or by another policy; a nil
// policy is the one in force. Nothing changes by it.
func (c *Catalog) Preview(more []*statement.Signed, policy *trust.Policy) (before, after trust.Decision, err error) {
	in := c.shown.Load()
	if in == nil {
		return before, after, ErrNotRunning
	}
	set, _, _ := new(store.Statements).Read(c.sources(*in)) // of what can be read now: it is a preview
	if policy == nil {
		policy = in.Policy
	}
	now, floor := c.cfg.Now(), c.cfg.State.Floor()
	before = in.Lease.Apply(trust.Decide(in.Policy, set, now, floor), floor, now)
	return before, in.Lease.Apply(trust.Decide(policy, append(set, more...), now, floor), floor, now), nil
}

// Statements returns the directories that Run watches, nil before it does.
func (c *Catalog) Statements() []string {
	if in := c.shown.Load(); in != nil {
		return in.Statements
	}
	return nil
}

// Memory returns how the memory for weights is used.
func (c *Catalog) Memory() seal.Usage { return c.cfg.Pool.Usage() }
