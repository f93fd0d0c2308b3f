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
		fmt.Fprintf(os.Stderr, "fair: %v\n", err)
		os.Exit(2)
	}
}

// run starts a gateway on a site of its own, has it asked by both and reports. The defers undo it, also after a signal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == loudCommand {
		return beLoud(ctx, args[1:], stdout)
	}
	flags := flag.NewFlagSet("fair", flag.ContinueOnError)
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
