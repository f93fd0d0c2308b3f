// Command decide times how long the decision takes over the statements of years.
//
// The one rule: what is timed is what a gateway does when it starts and when one statement arrives, with all signatures
// verified; verifying them is timed by itself.
//
// It is run from the repository's root, by make bench-decide. ROUNDS=n makes other than 7 rounds.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func main() { bench.Main(bench.Program{Name: "decide", Measure: measure}) }

// Names of the cases, and what they measure.
const (
	verify      = "verify and read all"
	start       = "decide after start"
	incremental = "one new statement"
	explain     = "explain all"

	seconds = "time"
)

var metrics = []bench.Metric{{Name: seconds, Unit: "s", Digits: 4}}

// measure signs a world of statements and decides over it in all ways.
func measure(ctx context.Context, job *bench.Job) error {
	w, err := newWorld()
	if err != nil {
		return fmt.Errorf("make statements: %w", err)
	}
	result, err := job.Time(ctx, w.cases(), metrics)
	if err != nil {
		return err
	}
	return job.Publish(w.report(result))
}

func (w *world) cases() []bench.Case {
	timed := func(do func() trust.Decision) (bench.Values, error) {
		begun := time.Now()
		d := do()
		took := time.Since(begun)
		for name, c := range d.Channels {
			if c.Serve == "" {
				return nil, fmt.Errorf("%s serves nothing", name)
			}
		}
		return bench.Values{seconds: took.Seconds()}, nil
	}
	verified := trust.NewLedger(w.policy)
	verified.Follow(w.set)
	more := append(append([]*statement.Signed{}, w.set...), w.next)
	return []bench.Case{
		{Name: verify, Run: func(context.Context) (bench.Values, error) {
			return timed(func() trust.Decision { trust.NewLedger(w.policy).Follow(w.set); return trust.Decision{} })
		}},
		{Name: start, Run: func(context.Context) (bench.Values, error) {
			return timed(func() trust.Decision { verified.Follow(w.set); return verified.Decide(now, w.floor) })
		}},
		{Name: incremental, Run: func(context.Context) (bench.Values, error) {
			l := trust.NewLedger(w.policy)
			l.Follow(w.set)
			l.Decide(now, w.floor)
			return timed(func() trust.Decision { l.Follow(more); return l.Decide(now, w.floor) })
		}},
		{Name: explain, Run: func(context.Context) (bench.Values, error) {
			return timed(func() trust.Decision { return trust.Decide(w.policy, w.set, now, w.floor) })
		}},
	}
}

// report puts the figures behind the table.
func (w *world) report(r *bench.Result) *bench.Report {
	ms := func(name, of string) bench.Figure {
		return bench.Figure{Name: name, Value: 1000 * r.Median(of, seconds), Digits: 2}
	}
	return &bench.Report{
		Name: "decide", Title: fmt.Sprintf("The decision over %d statements about %d releases", len(w.set), releases),
		Command: "make bench-decide",
		Facts: append(bench.Machine(os.TempDir()),
			bench.Fact{Name: "policy", Value: fmt.Sprintf("%d identities, %d channels; a release needs an evaluation and 2 approvals", identities, channels)},
			bench.Fact{Name: verify, Value: "read every statement, verify every signature (Ed25519), on one core"},
			bench.Fact{Name: start, Value: "decide for all channels by what was verified"},
			bench.Fact{Name: incremental, Value: "verify one more statement, and decide again"},
			bench.Fact{Name: explain, Value: "read, verify, and decide with a reason for each statement and channel, as explain does"}),
		Notes:   []string{"the gateway keeps what it has verified for as long as the statement is there"},
		Result:  r,
		Figures: []bench.Figure{ms("verify-ms", verify), ms("explain-ms", explain), ms("decide-start-ms", start), ms("decide-incremental-ms", incremental)},
	}
}
