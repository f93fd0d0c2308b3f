// Package bench times things beside each other.
//
// The one rule: it measures and never judges. Every case is run once in each round, in the same order, so that what the
// machine does meanwhile reaches all alike; what varies too much is called noisy and measured again, and nothing that
// was measured fails anything.
//
// Every benchmark is a [Program]. Its [Job] times cases as a [Suite], and publishes the [Result] with its figures in a
// [Report]:
//
//	func main() { bench.Main(bench.Program{Name: "sort", Measure: measure}) }
//
//	func measure(ctx context.Context, job *bench.Job) error {
//		result, err := job.Time(ctx, cases, metrics)
//		if err != nil {
//			return err
//		}
//		return job.Publish(report(result))
//	}
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxRounds bounds a mistyped number.
	maxRounds = 1000

	// noisyAbove is the [Series.Spread], as a share, from which a case is called noisy.
	noisyAbove = 0.15

	// maxRuns is how many whole runs are made, as long as the quietest is noisy.
	maxRuns = 3
)

// A Metric is something that cases measure.
type Metric struct {
	Name   string // as cases name it in their Values, and as the table's head
	Unit   string
	Digits int // behind the point
}

func (m Metric) format(v float64) string {
	return strings.TrimSpace(strconv.FormatFloat(v, 'f', m.Digits, 64) + " " + m.Unit)
}

// Values are what one run of a case measured, by the name of the metric. One that could not be measured is left out.
type Values map[string]float64

// A Case is one of the things that are timed beside each other.
type Case struct {
	Name string
	Peer bool // it shows what others take; the plot draws it in another colour

	// Run runs it once and returns what it measured. When it returns, nothing that it started goes on. Its error ends
	// the whole Suite.
	Run func(context.Context) (Values, error)
}

// A Suite is what is run and compared. Cases, Metrics and Rounds are required.
type Suite struct {
	Cases    []Case
	Metrics  []Metric // the first is the one that makes a case noisy, and that is plotted
	Rounds   int
	Progress io.Writer // gets a line for each case that has run; nil: nobody
}

// A Result is the quietest of the runs that a Suite made.
type Result struct {
	Cases   []Case
	Metrics []Metric
	Rounds  int
	Runs    int // that were made

	series map[string]map[string]Series // by case, then by metric
}

// Run runs all cases for so many rounds; the whole again, twice at most, while a case is noisy.
func (s Suite) Run(ctx context.Context) (*Result, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("benchmark: %w", err)
	}
	var quietest *Result
	for run := 1; run <= maxRuns; run++ {
		r, err := s.once(ctx)
		if err != nil {
			return nil, err
		}
		if quietest == nil || r.worst() < quietest.worst() {
			quietest = r
		}
		quietest.Runs = run
		if len(quietest.Noisy()) == 0 {
			break
		}
		s.say("run %d is noisy: %s", run, strings.Join(r.Noisy(), ", "))
	}
	return quietest, nil
}

func (s Suite) check() error {
	var errs []error
	if len(s.Cases) == 0 || len(s.Metrics) == 0 {
		errs = append(errs, errors.New("cases and metrics are required"))
	}
	if s.Rounds < 1 || s.Rounds > maxRounds {
		errs = append(errs, fmt.Errorf("%d rounds: want 1 to %d", s.Rounds, maxRounds))
	}
	for i, c := range s.Cases {
		if c.Name == "" || c.Run == nil {
			errs = append(errs, fmt.Errorf("case %d: a name and what to run are required", i))
		}
		if slices.ContainsFunc(s.Cases[:i], func(o Case) bool { return o.Name == c.Name }) {
			errs = append(errs, fmt.Errorf("case %q: there are two", c.Name))
		}
	}
	return errors.Join(errs...)
}

// once runs all rounds.
func (s Suite) once(ctx context.Context) (*Result, error) {
	r := &Result{Cases: s.Cases, Metrics: s.Metrics, Rounds: s.Rounds, series: map[string]map[string]Series{}}
	for round := 1; round <= s.Rounds; round++ {
		for _, c := range s.Cases {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("round %d: %w", round, context.Cause(ctx))
			}
			values, err := c.Run(ctx)
			if err != nil {
				return nil, fmt.Errorf("round %d: %s: %w", round, c.Name, err)
			}
			r.add(c.Name, values)
			s.say("round %d of %d: %s: %s", round, s.Rounds, c.Name, s.describe(values))
		}
	}
	return r, nil
}

func (s Suite) describe(v Values) string {
	var parts []string
	for _, m := range s.Metrics {
		if x, ok := v[m.Name]; ok {
			parts = append(parts, m.Name+" "+m.format(x))
		}
	}
	return strings.Join(parts, ", ")
}

func (s Suite) say(format string, args ...any) {
	if s.Progress != nil {
		fmt.Fprintf(s.Progress, format+"\n", args...)
	}
}

func (r *Result) add(name string, values Values) {
	if r.series[name] == nil {
		r.series[name] = map[string]Series{}
	}
	for metric, v := range values {
		r.series[name][metric] = append(r.series[name][metric], v)
	}
}

// Series returns what a case measured in all rounds; it is empty if it never did.
func (r *Result) Series(name, metric string) Series { return r.series[name][metric] }

// Median is short for the median of [Result.Series].
func (r *Result) Median(name, metric string) float64 { return r.Series(name, metric).Median() }

// Noisy names the cases whose first metric spreads too much to be relied on.
func (r *Result) Noisy() []string {
	var names []string
	for _, c := range r.Cases {
		if r.noisy(c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

func (r *Result) noisy(name string) bool {
	return r.Series(name, r.Metrics[0].Name).Spread() > noisyAbove
}

// worst is the spread of the case that spreads most.
func (r *Result) worst() float64 {
	worst := 0.0
	for _, c := range r.Cases {
		worst = max(worst, r.Series(c.Name, r.Metrics[0].Name).Spread())
	}
	return worst
}
