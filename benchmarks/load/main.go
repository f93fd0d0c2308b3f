// Command load times how long a model takes until it can answer: served by the gateway, which verifies every byte, and
// by llama-server alone, which verifies none.
//
// The one rule: every case starts the programs that users start, as they start them, and is timed from outside. When
// this program ends, also by a signal that can be caught, it leaves no process, no file and no setting behind but the
// model, which is kept for the next time.
//
// It is run from the repository's root, by make bench-load. The environment says what differs from the default:
// ROUNDS=n for other than 7 rounds, LAYERS=n for a smaller model (34 layers are 4.1 GB), SMALL=1 to measure also without
// huge pages for sealed memory, which takes root and changes a setting of the machine meanwhile, PRESENT=1 to begin cold
// cases with memory that is present, where else they begin on a machine that was idle.
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
	"strconv"
	"syscall"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

func main() {
	// Children die with the thread that started them, which so must be one that lives as long as this process does.
	runtime.LockOSThread()
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "load: %v\n", err)
		os.Exit(2)
	}
}

// An options says what is measured.
type options struct {
	rounds  int
	layers  int
	small   bool
	results string // directory; empty: only print
	model   bool   // only write the model
	present bool   // memory is present when cold cases begin
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.results, "results", "", "write the report and its plot into this `directory`")
	flags.BoolVar(&o.model, "model", false, "only write the model, if it is not there, and print its path")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	var err error
	if o.rounds, err = bench.Rounds(); err != nil {
		errs = append(errs, err)
	}
	o.layers = fullLayers
	if text := os.Getenv("LAYERS"); text != "" {
		if o.layers, err = strconv.Atoi(text); err != nil || o.layers < 1 || o.layers > fullLayers {
			errs = append(errs, fmt.Errorf("LAYERS=%q: want a number from 1 to %d", text, fullLayers))
		}
	}
	for name, option := range map[string]*bool{"SMALL": &o.small, "PRESENT": &o.present} {
		switch text := os.Getenv(name); text {
		case "", "0":
		case "1":
			*option = true
		default:
			errs = append(errs, fmt.Errorf("%s=%q: want 1, or nothing", name, text))
		}
	}
	return o, errors.Join(errs...)
}

// run builds a signed site, runs all cases over it and reports. The defers undo it, also after a signal: the setting for
// huge pages is put back by each case that changes it, processes end with the cases, and the site's directory goes last.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if opts.small {
		if err := checkSetting(shmemSetting); err != nil {
			return err
		}
	}
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "load: "+format+"\n", args...) }

	model, err := openModel(ctx, modelConfig(opts.layers), say)
	if err != nil {
		return err
	}
	if opts.model {
		_, err := fmt.Fprintln(stdout, model.path)
		return err
	}
	say("signing, releasing, approving and publishing the model")
	w, err := newWorld(ctx, model, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	w.present = opts.present
	huge, restore := allowHuge(shmemSetting)
	defer func() { err = errors.Join(err, restore()) }()
	w.huge = huge
	say("starting the gateway once, to learn how it starts llama-server")
	if err := w.probe(ctx); err != nil {
		return err
	}

	result, err := bench.Suite{Cases: w.cases(opts.small), Metrics: metrics, Rounds: opts.rounds, Progress: stderr}.Run(ctx)
	if err != nil {
		return err
	}
	r := w.report(ctx, opts, result)
	if _, err := stdout.Write(r.Text()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	switch {
	case opts.results == "":
		return nil
	case opts.layers != fullLayers:
		say("nothing is written to %s: the results there are those of the full model", opts.results)
		return nil
	default:
		return r.Save(opts.results)
	}
}
