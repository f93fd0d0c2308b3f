// Command fair measures what a caller notices of another one that asks for twenty times what its limits allow.
//
// The one rule: the quiet caller asks at a steady rate, whatever becomes of its requests, and its latency counts from when
// each was due. What the loud caller needs to send is kept out of the way: on another machine it would not be here at
// all. Nothing is asserted.
//
// It is run from the repository's root, by make bench-fair. ROUNDS=n makes other than 7 rounds.
package main

import (
	"context"
	"errors"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

func main() {
	site.Main(bench.Program{Name: "fair", Measure: measure, Commands: map[string]bench.Command{loudCommand: beLoud}})
}

// measure starts a gateway on a site of its own and has it asked by both. The defers undo it, also after a signal.
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
