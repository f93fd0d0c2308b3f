package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// TestReport reads the figures as they are read from release to release.
func TestReport(t *testing.T) {
	suite := bench.Suite{Metrics: metrics, Rounds: bench.DefaultRounds}
	for i, name := range []string{verify, start, incremental, explain} {
		took := float64(i + 1)
		suite.Cases = append(suite.Cases, bench.Case{Name: name, Run: func(context.Context) (bench.Values, error) { return bench.Values{seconds: took}, nil }})
	}
	r, err := suite.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := string(new(world).report(r).Text())
	lines := strings.Split(strings.TrimSpace(text), "\n")
	want := []string{"verify-ms: 1000.00", "explain-ms: 4000.00", "decide-start-ms: 2000.00", "decide-incremental-ms: 3000.00"}
	if got := lines[len(lines)-len(want):]; !slices.Equal(got, want) || lines[2] != "$ make bench-decide" {
		t.Errorf("report ends in %q, want %q, and how to repeat it:\n%s", got, want, text)
	}
}
