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
		fmt.Fprintf(os.Stderr, "swap: %v\n", err)
		os.Exit(2)
	}
}

// run starts a gateway on a site of its own, swaps under load and reports. The defers undo it, also after a signal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("swap", flag.ContinueOnError)
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
	w, err := newWorld(ctx, parts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	result, err := bench.Suite{Cases: w.cases(), Metrics: metrics, Rounds: rounds, Progress: stderr}.Run(ctx)
	if err != nil {
		return err
	}
	report := w.report(ctx, rounds, result)
	if *results != "" {
		if err := report.Save(*results); err != nil {
			return err
		}
	}
	_, err = stdout.Write(report.Text())
	return err
}
