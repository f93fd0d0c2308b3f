package bench_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

var seconds = []bench.Metric{{Name: "time", Unit: "s", Digits: 2}, {Name: "CPU", Unit: "s", Digits: 1}}

// scripted is a case whose runs take the given times, the last again and again, and that is noted in order.
func scripted(name string, order *[]string, times ...float64) bench.Case {
	return bench.Case{Name: name, Run: func(context.Context) (bench.Values, error) {
		*order = append(*order, name)
		took := times[0]
		if len(times) > 1 {
			times = times[1:]
		}
		return bench.Values{"time": took}, nil
	}}
}

func TestSuiteInterleaves(t *testing.T) {
	var order []string
	var progress bytes.Buffer
	s := bench.Suite{Cases: []bench.Case{scripted("a", &order, 2), scripted("b", &order, 4)}, Metrics: seconds, Rounds: 3, Progress: &progress}
	r, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "a", "b", "a", "b"}; !slices.Equal(order, want) {
		t.Errorf("cases ran as %v, want %v", order, want)
	}
	if got := r.Series("a", "time"); !slices.Equal(got, bench.Series{2, 2, 2}) {
		t.Errorf("Series(a) = %v, want three times 2", got)
	}
	if got := len(r.Series("a", "CPU")); got != 0 {
		t.Errorf("Series of what was not measured has %d values, want none", got)
	}
	if got := r.Ratio("a", "b").String(); got != "a/b: 0.500" {
		t.Errorf("Ratio(a, b) = %q, want a/b: 0.500", got)
	}
	if got := r.Ratio("a", "c").String(); got != "a/c: n/a" {
		t.Errorf("Ratio(a, c) = %q, want it not to be there", got)
	}
	if r.Runs != 1 || len(r.Noisy()) != 0 {
		t.Errorf("Runs, Noisy() = %d, %v, want one quiet run", r.Runs, r.Noisy())
	}
	if !strings.Contains(progress.String(), "round 3 of 3: b: time 4.00 s\n") {
		t.Errorf("progress lacks the last round:\n%s", &progress)
	}
}

func TestSuiteRepeatsWhatIsNoisy(t *testing.T) {
	tests := []struct {
		name  string
		times []float64 // of three runs of four rounds
		runs  int
		noisy bool
		kept  float64 // the median
	}{
		{"quiet", []float64{10, 10, 10, 11}, 1, false, 10},
		{"noisy once", []float64{10, 20, 10, 20, 12, 12, 12, 12}, 2, false, 12},
		{"noisy twice", []float64{10, 20, 10, 20, 10, 30, 10, 30, 14, 14, 14, 14}, 3, false, 14},
		{"always noisy, least in the second run", []float64{10, 30, 10, 30, 10, 16, 10, 16, 10, 90, 10, 90}, 3, true, 13},
		{"just noisy", []float64{100, 100, 117, 117, 100}, 2, false, 100},
		{"just quiet", []float64{100, 100, 116, 116}, 1, false, 108},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var order []string
			s := bench.Suite{Cases: []bench.Case{scripted("steady", &order, 1), scripted("wild", &order, tt.times...)}, Metrics: seconds, Rounds: 4}
			r, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if r.Runs != tt.runs || len(order) != 8*tt.runs {
				t.Errorf("Runs = %d with %d cases run, want %d whole runs of 8", r.Runs, len(order), tt.runs)
			}
			if got := slices.Equal(r.Noisy(), []string{"wild"}); got != tt.noisy {
				t.Errorf("Noisy() = %v, want wild among them: %v", r.Noisy(), tt.noisy)
			}
			if got := r.Median("wild", "time"); got != tt.kept {
				t.Errorf("Median(wild) = %v, want %v of the quietest run", got, tt.kept)
			}
		})
	}
}

func TestSuiteEnds(t *testing.T) {
	broken := errors.New("broken")
	var order []string
	s := bench.Suite{Metrics: seconds, Rounds: 2, Cases: []bench.Case{
		scripted("a", &order, 1),
		{Name: "b", Run: func(context.Context) (bench.Values, error) { return nil, broken }},
	}}
	if _, err := s.Run(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "round 1: b") {
		t.Errorf("Run() = %v, want %v with where it was", err, broken)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	s.Cases = []bench.Case{{Name: "c", Run: func(context.Context) (bench.Values, error) { cancel(broken); return nil, nil }}, scripted("d", &order, 1)}
	order = nil
	if _, err := s.Run(ctx); !errors.Is(err, broken) || len(order) != 0 {
		t.Errorf("Run() = %v after which %v ran, want %v and no more", err, order, broken)
	}
}

func TestSuiteRefuses(t *testing.T) {
	var order []string
	tests := []struct {
		name  string
		spoil func(*bench.Suite)
		want  string
	}{
		{"valid", func(*bench.Suite) {}, ""},
		{"no cases", func(s *bench.Suite) { s.Cases = nil }, "required"},
		{"no metrics", func(s *bench.Suite) { s.Metrics = nil }, "required"},
		{"no rounds", func(s *bench.Suite) { s.Rounds = 0 }, "0 rounds"},
		{"endless rounds", func(s *bench.Suite) { s.Rounds = 1e6 }, "1000000 rounds"},
		{"no name", func(s *bench.Suite) { s.Cases[0].Name = "" }, "name"},
		{"nothing to run", func(s *bench.Suite) { s.Cases[1].Run = nil }, "what to run"},
		{"two of a name", func(s *bench.Suite) { s.Cases[1].Name = "a" }, "there are two"},
	}
	for _, tt := range tests {
		s := bench.Suite{Cases: []bench.Case{scripted("a", &order, 1), scripted("b", &order, 1)}, Metrics: seconds, Rounds: 1}
		tt.spoil(&s)
		if _, err := s.Run(t.Context()); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Run() = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}
