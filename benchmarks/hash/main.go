// Command hash times how fast weights are hashed, read and sealed, beside the tools that people have.
//
// The one rule: what is compared does the same work on the same bytes. Cases with a name of their own run in this
// process, on a fixed number of cores; the commands of others run as their users start them, on a file in page cache.
//
// It is run from the repository's root, by make bench-hash. ROUNDS=n makes other than 7 rounds.
package main

import (
	"context"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

func main() { bench.Main(bench.Program{Name: "hash", Measure: measure}) }

// measure writes a model and runs all cases on it. The model goes when it ends.
func measure(ctx context.Context, job *bench.Job) error {
	s, err := newSite(ctx, job.Stderr)
	if err != nil {
		return err
	}
	defer s.close()
	result, err := job.Time(ctx, s.cases(), metrics)
	if err != nil {
		return err
	}
	return job.Publish(s.report(result))
}
