package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// counts are of all requests that were ever sent, also in rounds that were noisy and are not reported.
type counts struct {
	requests, failed int // of the quiet caller
	loud             tally
	example          string // of what failed first of the quiet one
}

func (c *counts) addQuiet(all []site.Sample) {
	for _, s := range all {
		c.requests++
		why := s.Failure + s.Wrong
		if why == "" {
			continue
		}
		c.failed++
		if c.example == "" {
			c.example = why
		}
	}
}

// report says everything that is needed to repeat the result, and computes the figures.
func (w *world) report(ctx context.Context, r *bench.Result) *bench.Report {
	report := &bench.Report{
		Name:    "fair",
		Title:   fmt.Sprintf("Latency of a caller beside one that asks for %d times what it may", times),
		Command: r.Command("make bench-fair"),
		Facts: append(w.Facts(ctx),
			bench.Fact{Name: "llama-server's options", Value: strings.Join(w.PlainArgs("mmap", "MODEL", "KEY"), " ")},
			bench.Fact{Name: "quiet caller", Value: fmt.Sprintf("%d requests a second for %d tokens each, due at random times, one in each interval, over %d connections with mTLS that stay open, for %s a round", quietRate, tokens, connections, measured)},
			bench.Fact{Name: "loud callers", Value: "two with SPIFFE IDs of their own, one of them at a time: a process of the lowest priority on one core that writes the same bytes again and again on connections with mTLS that stay open; what it takes of that core is its client's share"},
			bench.Fact{Name: rateOnce, Value: fmt.Sprintf("beside the one that is limited to %d requests a second, and sends so many for %d tokens each", loudRate, tokens)},
			bench.Fact{Name: rateOver, Value: fmt.Sprintf("the same, and it sends %d a second over %d connections", loudRate*times, ratedConnections)},
			bench.Fact{Name: countOnce, Value: fmt.Sprintf("beside the one that is limited to %d request at once, and always has so many for %d tokens each: the runtime always has something to do", loudConcurrent, countedTokens)},
			bench.Fact{Name: countOver, Value: fmt.Sprintf("the same, on %d connections at once, each of which asks again %s after a refusal", loudConcurrent*times, countedPause)},
		),
		Notes: []string{
			fmt.Sprintf("latency is from the time at which a request was due until its answer was there, whole; percentiles are of the %d requests of a round", quietRate*int(measured/time.Second)),
			"against alone is with what the loud caller may do in it, against 1 x is what it does beyond that",
			"the gateway's access log goes to a file",
			"failed requests and connections that were made anew are of all that were sent, those of noisy runs too",
		},
		Result:  r,
		Figures: w.figures(r),
	}
	if example := cmp.Or(w.total.example, w.total.loud.Example); example != "" {
		report.Notes = append(report.Notes, "failed first: "+example)
	}
	return report
}

func (w *world) figures(r *bench.Result) []bench.Figure {
	figures := []bench.Figure{
		{Name: "quiet-requests", Value: float64(w.total.requests)},
		{Name: "loud-requests", Value: float64(w.total.loud.sent())},
		{Name: "loud-connections-made-anew", Value: float64(w.total.loud.Anew)},
		{Name: "loud-failed-requests", Value: float64(w.total.loud.Failed)},
	}
	short := strings.NewReplacer(" x", "x", " ", "-").Replace
	for _, c := range r.Cases {
		for _, metric := range []string{p50, p99} {
			figures = append(figures, bench.Figure{Name: metric + "-" + short(c.Name) + "-ms", Value: r.Median(c.Name, metric), Digits: 1})
		}
	}
	for _, name := range []string{rateOver, countOver} {
		figures = append(figures, bench.Figure{Name: "refused-" + short(name) + "-percent", Value: r.Median(name, refused), Digits: 1})
	}
	for _, pair := range [][2]string{{countOver, alone}, {countOver, countOnce}, {rateOver, alone}, {rateOver, rateOnce}} {
		of, against := pair[0], pair[1]
		name := p99 + "-" + short(of) + "/" + p99 + "-" + short(against)
		figures = append(figures, bench.Figure{Name: name, Value: r.Median(of, p99) / r.Median(against, p99), Digits: 2})
	}
	return append(figures, bench.Figure{Name: "quiet-failed-requests", Value: float64(w.total.failed)})
}
