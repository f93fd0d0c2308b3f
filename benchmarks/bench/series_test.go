package bench_test

import (
	"math"
	"testing"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

func TestSeries(t *testing.T) {
	tests := []struct {
		name                     string
		series                   bench.Series
		median, spread, min, max float64
	}{
		{"odd", bench.Series{3, 1, 2}, 2, 0.5, 1, 3},
		{"even", bench.Series{4, 1, 3, 2}, 2.5, 0.6, 1, 4},
		{"one", bench.Series{5}, 5, 0, 5, 5},
		{"all alike", bench.Series{2, 2, 2, 2, 2}, 2, 0, 2, 2},
		{"one spoiled round does not spread", bench.Series{10, 10, 10, 10, 10, 10, 99}, 10, 0, 10, 99},
		{"half spoiled rounds do", bench.Series{10, 10, 20, 20}, 15, 10.0 / 15, 10, 20},
		{"zero", bench.Series{0, 0, 0}, 0, 0, 0, 0},
	}
	for _, tt := range tests {
		before := append(bench.Series{}, tt.series...)
		for what, pair := range map[string][2]float64{
			"Median": {tt.series.Median(), tt.median}, "Spread": {tt.series.Spread(), tt.spread},
			"Min": {tt.series.Min(), tt.min}, "Max": {tt.series.Max(), tt.max},
		} {
			if math.Abs(pair[0]-pair[1]) > 1e-9 {
				t.Errorf("%s: %s(%v) = %v, want %v", tt.name, what, tt.series, pair[0], pair[1])
			}
		}
		for i := range before {
			if before[i] != tt.series[i] {
				t.Errorf("%s: the series is %v afterwards, want it untouched", tt.name, tt.series)
			}
		}
	}
	if got := (bench.Series{}).Median(); !math.IsNaN(got) {
		t.Errorf("Median of nothing = %v, want not a number", got)
	}
}
