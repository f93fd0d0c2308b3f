package bench

import (
	"math"
	"slices"
	"time"
)

// A Series is what was measured in all rounds, in their order. Statistics of an empty one are not numbers.
type Series []float64

// Median returns the middle value, or the mean of the two in the middle.
func (s Series) Median() float64 { return s.Quantile(0.5) }

// Spread returns how far the middle half of the values reaches, from the first quartile to the third, as a share of the
// median. One round that a neighbour spoiled does not move it, as it would (max-min)/median; a machine that is busy
// half of the time does. Of fewer than two values it is zero: nothing is known.
func (s Series) Spread() float64 {
	if len(s) < 2 || s.Median() == 0 {
		return 0
	}
	return (s.Quantile(0.75) - s.Quantile(0.25)) / math.Abs(s.Median())
}

// Min returns the smallest value.
func (s Series) Min() float64 { return s.Quantile(0) }

// Max returns the largest value.
func (s Series) Max() float64 { return s.Quantile(1) }

// Quantile interpolates between the two values that stand beside the given share of the sorted ones.
func (s Series) Quantile(share float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	at := share * float64(len(s)-1)
	below := int(at)
	if below == len(s)-1 {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

// Milliseconds returns a time as a value that is measured in them.
func Milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
