package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// DefaultRounds is how often each case is run unless the environment variable ROUNDS says otherwise.
const DefaultRounds = 7

// A Program is a command that measures. Name and Measure are required.
type Program struct {
	Name string // its errors begin with it

	// Measure makes what is measured, has the Job time it and publish the report, and undoes it all, also when ctx ends:
	// a signal that can be caught does that.
	Measure func(ctx context.Context, job *Job) error

	// Flags adds to those that every program has. nil: nothing.
	Flags func(*flag.FlagSet)

	// Check looks at what the flags came to, at the arguments behind them and at the environment. nil: there are no arguments.
	Check func(args []string) error

	// Commands are what it does instead of measuring if its first argument is such a name: it starts itself so.
	Commands map[string]Command
}

// A Command does something with the arguments behind its name.
type Command func(ctx context.Context, args []string, stdout io.Writer) error

// Main is the whole main of a program. One that could not do its work exits with status 2.
func Main(p Program) {
	if err := p.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(2)
	}
}

// Run does what the arguments and the environment ask for, until a signal arrives at the latest.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		if command, ok := p.Commands[args[0]]; ok {
			return command(ctx, args[1:], stdout)
		}
	}
	job := &Job{Stdout: stdout, Stderr: stderr}
	if err := p.parse(job, args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	return p.Measure(ctx, job)
}

// parse fills in what the user asked for.
func (p Program) parse(job *Job, args []string) error {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(job.Stderr)
	flags.StringVar(&job.Results, "results", "", "write the report and its plot into this `directory`")
	if p.Flags != nil {
		p.Flags(flags)
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	var errOwn, errRounds error
	if p.Check != nil {
		errOwn = p.Check(flags.Args())
	} else if flags.NArg() > 0 {
		errOwn = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	job.Rounds, errRounds = rounds()
	return errors.Join(errOwn, errRounds)
}

// rounds reads how many are asked for.
func rounds() (int, error) {
	text := os.Getenv("ROUNDS")
	if text == "" {
		return DefaultRounds, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxRounds {
		return 0, fmt.Errorf("ROUNDS=%q: want a number from 1 to %d", text, maxRounds)
	}
	return n, nil
}

// A Job is one measurement, as the user of a Program asked for it.
type Job struct {
	Rounds  int
	Results string // directory for the report and its plot; empty: only print
	Stdout  io.Writer
	Stderr  io.Writer // for progress
}

// Time runs a [Suite] of these cases.
func (j *Job) Time(ctx context.Context, cases []Case, metrics []Metric) (*Result, error) {
	return Suite{Cases: cases, Metrics: metrics, Rounds: j.Rounds, Progress: j.Stderr}.Run(ctx)
}

// Publish prints the report and saves it if there is a directory for it. It is printed first: what took an hour to
// measure is not lost because it can't be saved.
func (j *Job) Publish(r *Report) error {
	if _, err := j.Stdout.Write(r.Text()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if j.Results == "" {
		return nil
	}
	return r.Save(j.Results)
}
