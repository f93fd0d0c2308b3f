package catalog

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A State is where a channel is.
type State string

// The states of a channel, as `weighbridge status` prints them.
const (
	StateNone     State = "none"     // nothing may be served
	StateLoading  State = "loading"  // the first release is being verified and started
	StateReady    State = "ready"    // a release serves, whatever else is being prepared
	StateDraining State = "draining" // nothing serves any more, but requests still run
	StateFailed   State = "failed"   // a release should serve and can't
)

// Status is what operators see of a channel. None of it is meant for callers.
type Status struct {
	Release, Weights, Level string // of what serves; empty if nothing does
	Publication             string
	Size                    int64          // of the weights and adapters that serve, in bytes
	Serves                  *trust.Release // it must not be changed
	Warm                    string         // the release that served before, if it is kept running
	Waiting                 int64          // requests, for the end of a gap
	Draining                int64          // releases that finish their last requests
	Epoch                   int64
	Sandbox                 string // full, partial or none
	Build                   string // digest of the runtime's binary
	State                   State
	Since                   time.Time
	Inflight                int64
	Restarts                int
	Fallback                bool // an older release serves in place of one that was withdrawn or lost its quorum
	PID                     int
	Error                   string // why nothing serves, or why what is newer does not
	LoadTime, StartTime     time.Duration
	Load                    *Load       // what is being brought up, if anything is
	Ends                    []trust.End // of what the decision to serve a release rests on
}

// set records what the channel is doing, when that is something else than before.
func (ch *channel) set(s State, why string) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.state != s {
		ch.since = ch.c.cfg.Now()
	}
	ch.state, ch.err = s, why
}

func (ch *channel) status() Status {
	r := ch.current.Load()
	ch.mu.Lock()
	defer ch.mu.Unlock()
	s := Status{State: ch.state, Since: ch.since, Error: ch.err, Load: ch.progress.Load().load(), Draining: int64(len(ch.leaving))}
	if g := ch.gap.Load(); g != nil {
		s.Waiting = g.waiting.Load()
	}
	if t := ch.decided.Load(); t != nil {
		s.Ends = t.ends
	}
	if w := ch.warm.Load(); w != nil {
		s.Warm = string(w.release)
	}
	if r == nil {
		if len(ch.leaving) > 0 && s.State == StateNone {
			s.State = StateDraining
		}
		return s
	}
	b := r.backend.Status()
	s.Release, s.Weights, s.Level = string(r.release), r.memory.weights.Root(), string(r.level)
	s.Size, s.Serves = r.memory.size(), r.description
	s.Publication, s.Epoch = string(*r.publication.Load()), r.epoch.Load()
	s.Sandbox, s.Build, s.Restarts, s.PID = string(b.Sandbox.Level), b.Build, b.Restarts, b.PID
	s.Fallback = r.fallback.Load()
	s.Since, s.Inflight = *r.since.Load(), r.requests()
	s.LoadTime, s.StartTime = r.loadTime, r.startTime
	s.State = StateReady
	if b.State != backends.Ready {
		s.State = StateLoading
		if b.State == backends.Failed {
			s.State = StateFailed
		}
	}
	if s.Error == "" {
		s.Error = b.Error
	}
	return s
}

// A Runtime is one that is there for a channel.
type Runtime struct {
	Release string
	Role    string // "serves", "warm" (it could serve again at once) or "drains"
	Kind    string // such as "llamacpp"
	Status  backends.Status
	process.Resources
}

func (ch *channel) runtimes() (all []Runtime) {
	serves, warm, leaving := ch.roles()
	for _, group := range []struct {
		role string
		of   []*running
	}{{"serves", serves}, {"warm", warm}, {"drains", leaving}} {
		for _, r := range group.of {
			st := r.backend.Status()
			all = append(all, Runtime{string(r.release), group.role, r.description.Runtime.Kind, st, process.ResourcesOf(st.PID)})
		}
	}
	return all
}

// metrics are what Prometheus sees of loads.
type metrics struct {
	loads    metric.Int64Counter
	duration metric.Float64Histogram
	bytes    metric.Int64Counter
	phases   metric.Float64Histogram // of one file
	swaps    metric.Float64Histogram // of one phase of a swap
}

func newMetrics(m metric.Meter) (metrics, error) {
	loads, err := m.Int64Counter("weighbridge.load.count", metric.WithDescription("releases loaded, by channel and outcome"))
	if err != nil {
		return metrics{}, err
	}
	duration, err := m.Float64Histogram("weighbridge.load.duration", metric.WithUnit("s"),
		metric.WithDescription("from decision to a release that answers"))
	if err != nil {
		return metrics{}, err
	}
	bytes, err := m.Int64Counter("weighbridge.load.bytes", metric.WithUnit("By"), metric.WithDescription("weights that were read and verified"))
	if err != nil {
		return metrics{}, err
	}
	phases, err := m.Float64Histogram("weighbridge.load.phase.duration", metric.WithUnit("s"),
		metric.WithDescription("work on one file, by phase: read (waiting for the device), hash, copy, seal"))
	if err != nil {
		return metrics{}, err
	}
	swaps, err := m.Float64Histogram("weighbridge.swap.phase.duration", metric.WithUnit("s"),
		metric.WithDescription("one phase of a swap, by channel and outcome: read, start, warm-up, record; then drain and stop, of what is replaced"))
	return metrics{loads, duration, bytes, phases, swaps}, err
}

func (m metrics) loaded(ctx context.Context, channel string, took time.Duration, err error) {
	outcome := "serves"
	if err != nil {
		outcome = "refused"
	}
	attrs := metric.WithAttributes(attribute.String("channel", channel), attribute.String("outcome", outcome))
	m.loads.Add(ctx, 1, attrs)
	m.duration.Record(ctx, took.Seconds(), attrs)
}
