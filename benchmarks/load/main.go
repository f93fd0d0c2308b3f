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
	"os"
	"strconv"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

func main() { site.Main(new(options).program()) }

// An options says what is measured.
type options struct {
	layers  int
	small   bool
	model   bool // only write the model
	present bool // memory is present when cold cases begin
}

func (o *options) program() bench.Program {
	return bench.Program{Name: "load", Flags: o.flags, Check: o.check, Measure: o.measure}
}

func (o *options) flags(flags *flag.FlagSet) {
	flags.BoolVar(&o.model, "model", false, "only write the model, if it is not there, and print its path")
}

// check reads the environment, too.
func (o *options) check(args []string) error {
	var errs []error
	if len(args) > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", args[0]))
	}
	o.layers = fullLayers
	if text := os.Getenv("LAYERS"); text != "" {
		var err error
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
	return errors.Join(errs...)
}

// measure builds a signed site and runs all cases over it. The defers undo it, also after a signal: the setting for huge
// pages is put back by each case that changes it, processes end with the cases, and the site's directory goes last.
func (o *options) measure(ctx context.Context, job *bench.Job) (err error) {
	if o.small {
		if err := checkSetting(shmemSetting); err != nil {
			return err
		}
	}
	say := func(format string, args ...any) { fmt.Fprintf(job.Stderr, "load: "+format+"\n", args...) }

	model, err := openModel(ctx, modelConfig(o.layers), say)
	if err != nil {
		return err
	}
	if o.model {
		_, err := fmt.Fprintln(job.Stdout, model.path)
		return err
	}
	say("signing, releasing, approving and publishing the model")
	w, err := newWorld(ctx, model, job.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	w.present = o.present
	huge, restore := allowHuge(shmemSetting)
	defer func() { err = errors.Join(err, restore()) }()
	w.huge = huge
	say("starting the gateway once, to learn how it starts llama-server")
	if err := w.probe(ctx); err != nil {
		return err
	}

	result, err := job.Time(ctx, w.cases(o.small), metrics)
	if err != nil {
		return err
	}
	return o.publish(job, w.report(ctx, *o, result))
}

// publish prints the report, and saves it only if it is of the full model.
func (o *options) publish(job *bench.Job, r *bench.Report) error {
	if job.Results != "" && o.layers != fullLayers {
		fmt.Fprintf(job.Stderr, "load: nothing is written to %s: the results there are those of the full model\n", job.Results)
		job.Results = ""
	}
	return job.Publish(r)
}
