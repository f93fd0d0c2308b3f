package main

import (
	"context"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// Names of the cases: what the loud caller does meanwhile.
const (
	alone     = "alone"
	rateOnce  = "rate 1 x"
	rateOver  = "rate 20 x"
	countOnce = "at once 1 x"
	countOver = "at once 20 x"
)

// What cases measure: of the quiet caller the latencies, of the loud one the rest.
const (
	p99      = "p99"
	p50      = "p50"
	asked    = "asked"
	answered = "answered"
	refused  = "refused"
	loudCPU  = "its client" // processor time, as a share of one core
)

var metrics = []bench.Metric{
	{Name: p99, Unit: "ms", Digits: 1},
	{Name: p50, Unit: "ms", Digits: 1},
	{Name: asked, Unit: "/s", Digits: 0},
	{Name: answered, Unit: "/s", Digits: 0},
	{Name: refused, Unit: "%", Digits: 0},
	{Name: loudCPU, Unit: "%", Digits: 0},
}

// The load. It leaves a machine of two cores time to spare.
const (
	connections = 8  // of the quiet caller: so many that none is ever asked twice at once
	quietRate   = 50 // requests a second
	tokens      = 8  // of an answer

	loudRate       = 10 // requests a second that the loud caller may send
	loudBurst      = 2  // it keeps to its rate, but for the clocks
	loudConcurrent = 1  // requests that another may have at once
	times          = 20 // as much as it may

	// ratedConnections are those of the caller that is limited by rate.
	ratedConnections = 16

	// countedPause is how long each connection of the other one waits when it was refused: a tenth of what it is told.
	// Else it asks again as soon as it has its answer, which has countedTokens.
	countedPause  = 100 * time.Millisecond
	countedTokens = 64

	// leadIn is how long both ask before anything is measured: connections are made meanwhile.
	leadIn = time.Second

	// measured is how long the quiet caller is.
	measured = 8 * time.Second
)

func (w *world) cases() []bench.Case {
	var all []bench.Case
	for _, c := range []struct {
		name   string
		beside *demand
	}{{alone, nil}, {rateOnce, byRate(1)}, {rateOver, byRate(times)}, {countOnce, atOnce(1)}, {countOver, atOnce(times)}} {
		all = append(all, bench.Case{Name: c.name, Run: func(ctx context.Context) (bench.Values, error) { return w.measure(ctx, c.beside) }})
	}
	return all
}

// byRate is so many times what the caller that is limited by rate may ask for.
func byRate(times int) *demand {
	return &demand{Caller: rated, Connections: ratedConnections, Every: ratedConnections * time.Second / time.Duration(loudRate*times), Tokens: tokens}
}

// atOnce is the same of the caller that is limited by requests at once.
func atOnce(times int) *demand {
	return &demand{Caller: counted, Connections: loudConcurrent * times, Pause: countedPause, Tokens: countedTokens}
}

// measure has the quiet caller ask, beside a loud one unless beside is nil.
func (w *world) measure(ctx context.Context, beside *demand) (bench.Values, error) {
	if beside == nil {
		took, err := w.quietly(ctx)
		return values(took), err
	}
	l, err := w.startLoud(*beside)
	if err != nil {
		return nil, err
	}
	took, err := w.quietly(ctx)
	loud, cpu, ended := l.end()
	if err != nil {
		return nil, err
	}
	if ended != nil {
		return nil, ended
	}
	lasted := time.Since(l.Begun).Seconds()
	w.total.loud.add(loud)
	v := values(took)
	v[asked], v[answered] = float64(loud.sent())/lasted, float64(loud.Answered)/lasted
	v[refused], v[loudCPU] = 100*float64(loud.Refused)/float64(loud.sent()), 100*cpu.Seconds()/lasted
	return v, nil
}

// values are those of the quiet caller.
func values(took bench.Series) bench.Values {
	return bench.Values{p99: took.Quantile(0.99), p50: took.Median()}
}

// quietly has the quiet caller ask, and returns its latencies in milliseconds.
func (w *world) quietly(ctx context.Context) (bench.Series, error) {
	l := site.StartLoad(site.LoadConfig{
		Callers: w.quiet, Rate: quietRate,
		Question: func(int) site.Question { return site.Question{Text: "Go on?", MaxTokens: tokens} },
		Check:    whole,
	})
	err := site.Sleep(ctx, leadIn+measured)
	all := l.End()
	w.total.addQuiet(all)
	return site.Latencies(all, site.Window{From: l.Begun.Add(leadIn), To: l.Begun.Add(leadIn + measured)}), err
}

// whole says how an answer is not one.
func whole(a site.Answer) string {
	if a.Text == "" {
		return "an answer is empty"
	}
	return ""
}
