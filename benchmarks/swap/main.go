// Command swap times what callers notice while a gateway under load goes from release to release.
//
// The one rule: the load is constant, whatever the gateway does. Every request is due at a time that was fixed before, and
// its latency counts from then, so that one that had to wait for another does not look fast. Nothing is asserted: failed
// requests and answers of another release than the one that is named are counted and reported.
//
// It is run from the repository's root, by make bench-swap. ROUNDS=n makes other than 7 rounds.
package main

import (
	"context"
	"errors"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

func main() {
	site.Main(bench.Program{Name: "swap", Measure: measure})
}

// measure starts a gateway on a site of its own and swaps under load. The defers undo it, also after a signal.
func measure(ctx context.Context, job *bench.Job) (err error) {
	w, err := newWorld(ctx, job.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	result, err := job.Time(ctx, w.cases(), metrics)
	if err != nil {
		return err
	}
	return job.Publish(w.report(ctx, result))
}
