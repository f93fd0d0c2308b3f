package catalog

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// The phases of a swap, in order. The last two are of the release that is replaced.
const (
	phaseRead   = "read"    // and hash and seal
	phaseStart  = "start"   // the runtime
	phaseWarmUp = "warm-up" // its first question
	phaseRecord = "record"  // in the audit log and the floor; then it serves
	phaseDrain  = "drain"   // its last requests
	phaseStop   = "stop"    // its runtime
)

// Load is how far a release has come that is being brought up.
type Load struct {
	Release      string
	Phase        string // "read" (and hashed and sealed), "start" (of the runtime), "warm-up" or "record"
	Bytes, Total int64  // of the weights that were read, and in all
	Rate         float64
	Left         time.Duration // until all is read at Rate, which is in bytes a second
}

// A progress is what becomes of one attempt to have a release serve. It is told and asked concurrently.
type progress struct {
	channel string
	release statement.ID
	phase   atomic.Value // of string
	begun   atomic.Pointer[time.Time]
	done    atomic.Int64
	total   atomic.Int64
	before  atomic.Int64 // bytes of what was read before that which is being read
}

func newProgress(channel string, release statement.ID) *progress {
	p := &progress{channel: channel, release: release}
	p.phase.Store(phaseRead)
	return p
}

// read is told how much of the weights, or of an adapter, was read. Reports may overtake each other.
func (p *progress) read(done, total int64) {
	if p.begun.Load() == nil {
		now := time.Now()
		p.begun.CompareAndSwap(nil, &now)
	}
	done += p.before.Load()
	p.total.Store(total + p.before.Load())
	for before := p.done.Load(); before < done && !p.done.CompareAndSwap(before, done); before = p.done.Load() {
	}
}

// next says that what is read from now on comes on top.
func (p *progress) next() { p.before.Store(p.total.Load()) }

// load returns a snapshot, nil for a nil progress.
func (p *progress) load() *Load {
	if p == nil {
		return nil
	}
	l := &Load{Release: string(p.release), Phase: p.phase.Load().(string), Bytes: p.done.Load(), Total: p.total.Load()}
	if begun := p.begun.Load(); begun != nil && l.Phase == phaseRead {
		if took := time.Since(*begun).Seconds(); took > 0 && l.Bytes > 0 {
			l.Rate = float64(l.Bytes) / took
			l.Left = time.Duration(float64(l.Total-l.Bytes) / l.Rate * float64(time.Second))
		}
	}
	return l
}

// begin shows that a release is being brought up, until the step that does so is over.
func (ch *channel) begin(release statement.ID) *progress {
	p := newProgress(ch.name, release)
	ch.progress.Store(p)
	return p
}

// traced does one attempt to have a release serve, under a span of its own.
func (ch *channel) traced(ctx context.Context, release statement.ID, do func(context.Context) error) error {
	ctx, span := ch.c.cfg.Tracer.Start(ctx, "swap "+ch.name, trace.WithAttributes(
		attribute.String("weighbridge.channel", ch.name), attribute.String("weighbridge.release", string(release))))
	defer span.End()
	err := do(ctx)
	if err != nil {
		span.SetStatus(codes.Error, firstLine(err))
	}
	return err
}

// during does one phase of having a release serve: as status shows it, and as the log, a span and a metric tell.
func (c *Catalog) during(ctx context.Context, p *progress, phase string, do func(context.Context) error) error {
	p.phase.Store(phase)
	return c.phase(ctx, p.channel, p.release, phase, do)
}

// phase does one phase of a swap, and has the log, a span and a metric tell of it.
func (c *Catalog) phase(ctx context.Context, channel string, release statement.ID, phase string, do func(context.Context) error) error {
	ctx, span := c.cfg.Tracer.Start(ctx, phase, trace.WithAttributes(
		attribute.String("weighbridge.channel", channel), attribute.String("weighbridge.release", string(release))))
	defer span.End()
	log := c.cfg.Log.With("channel", channel, "release", release, "phase", phase)
	log.Info("phase begins")
	begun := c.cfg.Now()
	err := do(ctx)
	took := c.cfg.Now().Sub(begun).Seconds()
	outcome := "done"
	if err != nil {
		outcome = "failed"
		span.SetStatus(codes.Error, firstLine(err))
		log = log.With("err", err)
	}
	log.Info("phase ends", "outcome", outcome, "seconds", took)
	c.metrics.swaps.Record(ctx, took, metric.WithAttributes(
		attribute.String("channel", channel), attribute.String("phase", phase), attribute.String("outcome", outcome)))
	return err
}

// traceFile makes a span of each phase of loading a file, and counts it. The phases of a file overlap, so that a span
// says how long of its time there was work.
func (c *Catalog) traceFile(ctx context.Context, f seal.FileTimes) {
	c.metrics.bytes.Add(ctx, f.Bytes)
	for _, phase := range []struct {
		name string
		digest.Phase
	}{{"read", f.Read}, {"hash", f.Hash}, {"copy", f.Copy}, {"seal", f.Seal}} {
		if phase.Start.IsZero() {
			continue
		}
		_, span := c.cfg.Tracer.Start(ctx, phase.name, trace.WithTimestamp(phase.Start), trace.WithAttributes(
			attribute.String("weighbridge.file", f.Name), attribute.Int64("weighbridge.bytes", f.Bytes),
			attribute.Float64("weighbridge.busy_seconds", phase.Busy.Seconds())))
		span.End(trace.WithTimestamp(phase.End))
		c.metrics.phases.Record(ctx, phase.Busy.Seconds(), metric.WithAttributes(attribute.String("phase", phase.name)))
	}
}
