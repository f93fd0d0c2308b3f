// Command hash times how fast weights are hashed, read and sealed, beside the tools that people have.
//
// The one rule: what is compared does the same work on the same bytes. Cases with a name of their own run in this
// process, on a fixed number of cores; the commands of others run as their users start them, on a file in page cache.
//
// It is run from the repository's root, by make bench-hash. ROUNDS=n makes other than 7 rounds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "hash: %v\n", err)
		os.Exit(2)
	}
}

// run writes a model, runs all cases on it and reports. The model goes when it ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("hash", flag.ContinueOnError)
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
	s, err := newSite(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	result, err := bench.Suite{Cases: s.cases(), Metrics: metrics, Rounds: rounds, Progress: stderr}.Run(ctx)
	if err != nil {
		return err
	}
	report := s.report(result)
	if *results != "" {
		if err := report.Save(*results); err != nil {
			return err
		}
	}
	_, err = stdout.Write(report.Text())
	return err
}
