// Package catalog knows which release serves each channel.
//
// The one rule: what serves a channel changes only after its replacement was decided, verified, started and recorded;
// any failure before that leaves the old release serving. Each channel has one goroutine that alone changes it, and
// readers take what it published last without waiting.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
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
	inputs  Inputs
	files   store.Statements
	set     []*statement.Signed        // as last read
	ledger  *trust.Ledger              // of the policy in inputs
	told    map[string]string          // what is wrong with each bad file, as logged
	kept    map[*statement.Signed]bool // withdrawals that the state keeps
	next    time.Time                  // when something ends on which a decision rests; zero: nothing does
	last    map[string]trust.Channel
	unsaved bool // a withdrawal may be in the floor and yet not be durable
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
	c := &Catalog{cfg: cfg, metrics: m, updates: make(chan Inputs), told: map[string]string{}, kept: map[*statement.Signed]bool{}, last: map[string]trust.Channel{}}
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
			ch.stop()
			delete(c.last, name)
		}
	}
}

// decide reads the statements and tells each channel what it should serve. Statements that can't be read now were
// read before: what they decided stands, apart from what has expired since.
func (c *Catalog) decide() {
	set, bad, err := c.files.Read(c.sources(c.inputs))
	c.set = set // without what can't be read now and never was
	c.tellUnread(err)
	c.tell(bad)
	now := c.cfg.Now()
	c.keepTime(now)
	c.ledger.Follow(c.set)
	floor := c.cfg.State.Floor()
	decision := c.inputs.decide(c.ledger, floor, now)
	c.keepWithdrawals(decision, now)
	c.next = time.Time{}
	if most := c.inputs.Lease.MaxStaleness; most > 0 {
		c.endsAt(floor.Heard.Add(most+time.Second), now) // a lease has run out only after its last moment
	}
	for name, ch := range *c.channels.Load() {
		d, known := decision.Channels[name]
		t := target{policy: c.inputs.Policy, weights: c.inputs.Weights, ends: c.ledger.Ends(name, d), refused: c.ledger.Refusals(name, d, floor)}
		if !known {
			d.Reasons = append(d.Reasons, trust.Reason{Rule: trust.RuleScope, Why: "the trust policy knows no such channel"})
			t.refused = []string{trust.RuleScope}
		}
		for _, end := range t.ends {
			c.endsAt(end.At, now)
		}
		t.decision = d
		c.logDecision(name, d)
		ch.decided.Store(&t)
		ch.want(t)
	}
}

// sources are the directories that statements come from: those that are watched, and the state's own, which withdrawals
// never leave.
func (c *Catalog) sources(in Inputs) []string {
	return append(in.Statements[:len(in.Statements):len(in.Statements)], c.cfg.State.WithdrawnDir())
}

// tellUnread tells of directories that can't be read, once for as long as it stays so. What they held counts still.
func (c *Catalog) tellUnread(err error) {
	was, text := c.unread.Load(), ""
	if err != nil {
		text = err.Error()
	}
	if c.unread.Store(&text); err != nil && (was == nil || *was != text) {
		c.cfg.Log.Error("directories of statements can't be read; what they held when they were read last still counts", "err", err)
	}
}

// Problems are what an operator should know that is no channel's: a line each.
func (c *Catalog) Problems() []string {
	if text := c.unread.Load(); text != nil && *text != "" {
		return strings.Split(*text, "\n")
	}
	return nil
}

// maxTold bounds what is logged about one file, which anyone may have written.
const maxTold = 512

// tell logs what is wrong with each file, once for as long as it stays so.
func (c *Catalog) tell(bad []store.Problem) {
	told := make(map[string]string, len(bad))
	for _, b := range bad {
		told[b.File] = fmt.Sprintf("%.*s", maxTold, b.Err.Error())
		if c.told[b.File] != told[b.File] {
			c.cfg.Log.Warn("statement file does not count", "file", b.File, "err", told[b.File])
		}
	}
	c.told = told
}

// keepTime makes the time high-water mark durable once a minute. If that fails, what serves goes on: the mark in
// memory protects this process, and the next minute tries again.
func (c *Catalog) keepTime(now time.Time) {
	if now.Sub(c.cfg.State.Floor().TimeHighWater) < time.Minute {
		return
	}
	err := c.cfg.State.Raise(func(f trust.Floor) trust.Floor {
		f.TimeHighWater = now.UTC()
		return f
	})
	if err != nil {
		c.cfg.Log.Error("time high-water mark was not saved", "err", err)
	}
}

// keepWithdrawals makes what was withdrawn durable. What it stops is stopped whether or not that succeeds, and for as
// long as the statements are there it is tried again.
func (c *Catalog) keepWithdrawals(decision trust.Decision, now time.Time) {
	changed := false
	if err := c.keepStatements(decision); err != nil {
		c.cfg.Log.Error("a withdrawal was not kept; it holds for as long as its statement is there", "err", err)
	}
	withdraw := func(f trust.Floor) trust.Floor {
		for _, name := range slices.Sorted(maps.Keys(decision.Channels)) {
			var more bool
			f, more = f.Withdraw(decision.Channels[name], c.inputs.Policy, now)
			changed = changed || more
		}
		return f
	}
	if withdraw(c.cfg.State.Floor()); !changed && !c.unsaved {
		return
	}
	before := c.cfg.State.Floor()
	err := c.cfg.State.Raise(withdraw)
	c.noteWithdrawn(before, withdraw(before))
	if c.unsaved = err != nil; c.unsaved {
		c.cfg.Log.Error("a withdrawal was not saved; it holds for as long as its statement is there", "err", err)
		return
	}
	c.cfg.Log.Info("withdrawals recorded", "withdrawn", len(c.cfg.State.Floor().Withdrawn))
}

// keepStatements copies the withdrawals that count into the state, before the floor counts them.
func (c *Catalog) keepStatements(decision trust.Decision) error {
	count := map[statement.ID]bool{}
	for _, d := range decision.Channels {
		for _, r := range d.Reasons {
			count[r.Statement] = count[r.Statement] || r.Rule == trust.RuleWithdrawn && r.Counted
		}
	}
	var errs []error
	for _, s := range c.set {
		if count[s.ID()] && !c.kept[s] {
			err := c.cfg.State.KeepWithdrawal(s)
			c.kept[s] = err == nil
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// logDecision logs a channel's decision when it differs from the last.
func (c *Catalog) logDecision(name string, d trust.Channel) {
	last, seen := c.last[name]
	if seen && last.Serve == d.Serve && last.Epoch == d.Epoch && last.Stale == d.Stale && reflect.DeepEqual(last.Missing, d.Missing) &&
		reflect.DeepEqual(last.Pending, d.Pending) {
		return
	}
	c.last[name] = d
	attrs := []any{"channel", name, "release", d.Serve, "epoch", d.Epoch, "publication", d.Publication}
	for _, p := range d.Pending {
		attrs = append(attrs, "pending", fmt.Sprintf("%s at epoch %d: %s", p.Release, p.Epoch, whyNot(trust.Channel{Missing: p.Missing})))
	}
	if d.Serve == "" {
		c.cfg.Log.Warn("channel may serve nothing", append(attrs, "why", whyNot(d))...)
		return
	}
	if d.Stale != "" {
		c.cfg.Log.Warn("the site's lease has run out", append(attrs, "why", d.Stale)...)
		return
	}
	c.cfg.Log.Info("channel decided", attrs...)
}

// maxWhy bounds how many reasons are told of a channel that serves nothing.
const maxWhy = 8

// whyNot says in one line why a channel may serve nothing. A publication below the floor is history that every channel
// gathers: it is told only if there is nothing else to tell.
func whyNot(d trust.Channel) string {
	if d.Stale != "" {
		return d.Stale
	}
	var why, history []string
	for _, m := range d.Missing {
		why = append(why, fmt.Sprintf("%s by role %s", m, m.Role))
	}
	for _, r := range d.Reasons {
		switch text := r.Rule + ": " + r.Why; {
		case r.Counted:
		case r.Rule == trust.RuleEpochReplay:
			history = append(history, text)
		default:
			why = append(why, text)
		}
	}
	if len(why) == len(d.Missing) {
		why = append(why, history...)
	}
	why = slices.Compact(why)
	if len(why) == 0 {
		return "no publication for this channel counts"
	}
	return strings.Join(why[:min(len(why), maxWhy)], "; ")
}

// Acquire returns the release that serves the channel, held until Done is called.
func (c *Catalog) Acquire(name string) (*Serving, error) {
	ch := (*c.channels.Load())[name]
	if ch == nil {
		return nil, fmt.Errorf("channel %q: %w", name, ErrUnknownChannel)
	}
	for {
		r := ch.current.Load()
		if r == nil {
			return nil, fmt.Errorf("channel %q: %w: %s", name, ErrNotServing, ch.status().Error)
		}
		if r.acquire() {
			return &Serving{channel: name, running: r}, nil
		}
		// r was retired between the load and the acquire, so its successor is published already.
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
