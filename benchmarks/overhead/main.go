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
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

func main() {
	// Children die with the thread that started them, which so must be one that lives as long as this process does.
	runtime.LockOSThread()
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "overhead: %v\n", err)
		os.Exit(2)
	}
}

// run starts all that is measured, has it asked and reports. The defers undo it, also after a signal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == bareCommand {
		return serveBare(ctx, args[1:])
	}
	flags := flag.NewFlagSet("overhead", flag.ContinueOnError)
	flags.SetOutput(stderr)
	results := flags.String("results", "", "write the report and its plot into this `directory`")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	rounds, err := bench.Rounds()
	if err != nil {
		return err
	}
	parts, err := site.FindParts(ctx, stderr)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, parts, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	result, err := bench.Suite{Cases: w.cases(), Metrics: metrics, Rounds: rounds, Progress: stderr}.Run(ctx)
	if err != nil {
		return err
	}
	idle, err := w.idle(ctx)
	if err != nil {
		return err
	}
	report := w.report(ctx, rounds, result, idle)
	if *results != "" {
		if err := report.Save(*results); err != nil {
			return err
		}
	}
	_, err = stdout.Write(report.Text())
	return err
}
