// Command overhead measures what the gateway adds to the model server behind it, beside proxies that only pass on.
//
// The one rule: all stand before the same llama-server and are asked the same by the same client at a rate that the machine
// holds, and only the processor time of the proxy itself counts. Nothing is asserted.
//
// It is run from the repository's root, by make bench-overhead. ROUNDS=n makes other than 7 rounds.
package main

import (
	"context"
	"errors"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

func main() {
	site.Main(bench.Program{Name: "overhead", Measure: measure, Commands: map[string]bench.Command{bareCommand: serveBare}})
}

// measure starts all that is measured and has it asked. The defers undo it, also after a signal.
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
	idle, err := w.idle(ctx)
	if err != nil {
		return err
	}
	return job.Publish(w.report(ctx, result, idle))
}
