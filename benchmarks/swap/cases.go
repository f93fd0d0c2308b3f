package main

import (
	"context"
	"fmt"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// Names of the cases. Figures are named after them.
const (
	plain    = "llama-server alone"
	before   = "before"
	during   = "new release"
	rollback = "warm rollback"
)

// What cases measure.
const (
	p99   = "p99"
	p50   = "p50"
	first = "first answer" // from the arrival of what was signed; of llama-server: from its start until it is ready
	reqs  = "requests"
)

var metrics = []bench.Metric{
	{Name: p99, Unit: "ms", Digits: 1},
	{Name: p50, Unit: "ms", Digits: 1},
	{Name: first, Unit: "ms", Digits: 0},
	{Name: reqs},
}

const (
	// swaps is how many a round makes in a row, and how many rollbacks: the latencies of all are taken together.
	swaps = 10

	// leadIn is how long the load runs before anything is measured: connections are made meanwhile.
	leadIn = time.Second

	// quiet is how long the gateway is measured without a swap.
	quiet = 8 * time.Second

	// pause is between two swaps: what the one before it left to do is done.
	pause = 500 * time.Millisecond
)

func (w *world) cases() []bench.Case {
	return []bench.Case{
		{Name: plain, Peer: true, Run: w.plain},
		{Name: before, Run: w.before},
		{Name: during, Run: w.during},
		{Name: rollback, Run: w.rollbacks},
	}
}

// plain is how long llama-server itself takes until it is ready.
func (w *world) plain(ctx context.Context) (bench.Values, error) {
	p, took, err := w.StartPlain(ctx, modelName(w.models), "mmap")
	if err != nil {
		return nil, err
	}
	_, err = p.End()
	p.Stop()
	return bench.Values{first: bench.Milliseconds(took)}, err
}

// before is the gateway under load without a swap.
func (w *world) before(ctx context.Context) (bench.Values, error) {
	var spans []site.Window
	samples, err := w.underLoad(ctx, func() error {
		now := time.Now()
		spans = []site.Window{{From: now, To: now.Add(quiet)}}
		return site.Sleep(ctx, quiet)
	})
	if err != nil {
		return nil, err
	}
	return values(site.Latencies(samples, spans...)), nil
}

// during swaps to one new release after the other.
func (w *world) during(ctx context.Context) (bench.Values, error) {
	var changes []change
	for range swaps {
		c, err := w.newRelease(ctx)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return w.swaps(ctx, changes)
}

// rollbacks goes back to the release before, and from there to the one before that.
func (w *world) rollbacks(ctx context.Context) (bench.Values, error) {
	var changes []change
	for n := range swaps {
		c, err := w.rollback(ctx, w.serving[(n+1)%len(w.serving)])
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return w.swaps(ctx, changes)
}

// swaps carries out changes under load.
func (w *world) swaps(ctx context.Context, changes []change) (bench.Values, error) {
	var spans []site.Window
	samples, err := w.underLoad(ctx, func() error {
		for _, c := range changes {
			span, err := w.swap(ctx, c)
			if err != nil {
				return err
			}
			spans = append(spans, span)
			if err := site.Sleep(ctx, pause); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var answered bench.Series
	for n, c := range changes {
		at, ok := firstAnswer(samples, c.release, spans[n].From)
		if !ok {
			return nil, fmt.Errorf("release %s answered nobody", c.release)
		}
		answered = append(answered, bench.Milliseconds(at.Sub(spans[n].From)))
	}
	v := values(site.Latencies(samples, spans...))
	v[first] = answered.Median()
	w.total.swaps += len(changes)
	return v, nil
}

func values(took bench.Series) bench.Values {
	return bench.Values{p99: took.Quantile(0.99), p50: took.Median(), reqs: float64(len(took))}
}

// underLoad does something while callers ask, and returns all their requests.
func (w *world) underLoad(ctx context.Context, do func() error) ([]site.Sample, error) {
	l := w.startLoad()
	err := site.Sleep(ctx, leadIn)
	if err == nil {
		err = do()
	}
	samples := l.End()
	w.total.add(samples, time.Since(l.Begun))
	return samples, err
}
