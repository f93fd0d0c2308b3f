package site

import (
	"slices"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// at is a moment of the tests, in milliseconds.
func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func TestDueAfter(t *testing.T) {
	c := LoadConfig{Callers: make([]*Caller, 4), Rate: 64}
	var all []time.Duration
	for turn := range 8 {
		for caller := range c.Callers {
			all = append(all, c.dueAfter(caller, turn))
		}
	}
	const interval = time.Second / 64
	var within time.Duration
	for i, due := range all {
		late := due - time.Duration(i)*interval
		if late < 0 || late >= interval {
			t.Fatalf("request %d is due after %v, want it within its interval", i, due)
		}
		within += late
	}
	if mean := within / time.Duration(len(all)); mean < interval/4 || mean > interval*3/4 {
		t.Errorf("requests are due %v after their interval has begun, at a mean, want half of %v", mean, interval)
	}
}

func TestLatencies(t *testing.T) {
	one, two := Window{at(100), at(200)}, Window{at(300), at(400)}
	tests := []struct {
		name      string
		due, done int
		want      bool
	}{
		{"within the first", 150, 160, true},
		{"within the second", 350, 360, true},
		{"answered after the end", 199, 900, true},
		{"due at the beginning", 100, 101, true},
		{"due at the end", 200, 201, false},
		{"due before, answered within", 99, 150, false},
		{"between", 250, 260, false},
	}
	for _, tt := range tests {
		got := Latencies([]Sample{{Due: at(tt.due), Done: at(tt.done)}}, one, two)
		want := bench.Series(nil)
		if tt.want {
			want = bench.Series{float64(tt.done - tt.due)}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: Latencies() = %v, want %v", tt.name, got, want)
		}
	}
	if got := Latencies([]Sample{{Due: at(150), Done: at(151)}}, one, one); len(got) != 1 {
		t.Errorf("in two windows at once: Latencies() = %v, want it once", got)
	}
}
