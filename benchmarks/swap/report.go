package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// counts are of all requests that were ever sent, also in rounds that were noisy and are not reported.
type counts struct {
	requests, failed, mixed int
	asking                  time.Duration
	swaps                   int    // and rollbacks
	example                 string // of what went wrong first
}

func (c *counts) add(all []site.Sample, took time.Duration) {
	c.asking += took
	for _, s := range all {
		c.requests++
		wrong := s.Failure
		switch {
		case s.Failure != "":
			c.failed++
		case s.Wrong != "":
			c.mixed++
			wrong = s.Wrong
		}
		if c.example == "" {
			c.example = wrong
		}
	}
}

// report says everything that is needed to repeat the result, and computes the figures.
func (w *world) report(ctx context.Context, r *bench.Result) *bench.Report {
	const model, key = "MODEL", "KEY"
	report := &bench.Report{
		Name:    "swap",
		Title:   fmt.Sprintf("Latency while releases are swapped under %d requests a second", rate),
		Command: r.Command("make bench-swap"),
		Facts: append(w.Facts(ctx),
			bench.Fact{Name: "load", Value: fmt.Sprintf("%d callers over HTTPS with SVIDs of their own, every other one streaming, all due at random times, one in each interval", callers)},
			bench.Fact{Name: "models", Value: "3 MB each, no two alike, that answer with the name of their version"},
			bench.Fact{Name: plain, Value: "llama-server " + strings.Join(w.PlainArgs("mmap", model, key), " ") + ", without load, until /health answers 200"},
			bench.Fact{Name: before, Value: fmt.Sprintf("the gateway without a swap, for %s", quiet)},
			bench.Fact{Name: during, Value: fmt.Sprintf("%d swaps in a row: from the arrival of a publication until the release serves and the oldest runtime has left", swaps)},
			bench.Fact{Name: rollback, Value: fmt.Sprintf("%d in a row: from the arrival of a rollback's statement until the release serves that was kept warm", swaps)},
		),
		Notes: []string{
			"latency is from the time at which a request was due until its answer was there, whole; percentiles are of all requests of a round that were due while it went on",
			"first answer is from the arrival of the statement until the release has answered one caller; releases are read, hashed, sealed, started and recorded meanwhile",
			"100 ms of that are the gateway's, which waits for a directory to be quiet before it reads statements",
			"failed and mixed are of all requests, those of noisy runs too",
		},
		Result:  r,
		Figures: w.figures(r),
	}
	if w.total.example != "" {
		report.Notes = append(report.Notes, "went wrong first: "+w.total.example)
	}
	return report
}

func (w *world) figures(r *bench.Result) []bench.Figure {
	against := func(name, of, metric string) bench.Figure { // what it is without a swap
		return bench.Figure{Name: metric + "-" + name + "/" + metric + "-before", Value: r.Median(of, metric) / r.Median(before, metric), Digits: 2}
	}
	return []bench.Figure{
		{Name: "swaps", Value: float64(w.total.swaps)},
		{Name: "requests", Value: float64(w.total.requests)},
		{Name: "requests-per-second", Value: float64(w.total.requests) / w.total.asking.Seconds(), Digits: 1},
		{Name: "p99-before-ms", Value: r.Median(before, p99), Digits: 1},
		{Name: "p50-before-ms", Value: r.Median(before, p50), Digits: 1},
		against("during", during, p50),
		against("rollback", rollback, p50),
		against("rollback", rollback, p99),
		{Name: "llama-server-start-ms", Value: r.Median(plain, first)},
		{Name: "publication-to-first-answer-ms", Value: r.Median(during, first)},
		{Name: "failed-requests", Value: float64(w.total.failed)},
		{Name: "mixed-answers", Value: float64(w.total.mixed)},
		against("during", during, p99),
		{Name: "warm-rollback-ms", Value: r.Median(rollback, first)},
	}
}
