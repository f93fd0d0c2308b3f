package catalog

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// The phases of bringing a release up.
const (
	phaseRead   = "read"    // and hash and seal
	phaseStart  = "start"   // the runtime
	phaseWarmUp = "warm-up" // its first question
)

// Load is how far a release has come that is being brought up.
type Load struct {
	Release      string
	Phase        string // "read" (and hashed and sealed), "start" (of the runtime) or "warm-up"
	Bytes, Total int64  // of the weights that were read, and in all
	Rate         float64
	Left         time.Duration // until all is read at Rate, which is in bytes a second
}

// A progress is what becomes of one attempt to bring a release up. It is told and asked concurrently.
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
