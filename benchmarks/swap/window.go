package main

import (
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// A window is a span of time in which something went on.
type window struct{ from, to time.Time }

func (w window) holds(t time.Time) bool { return !t.Before(w.from) && t.Before(w.to) }

// latencies returns, in milliseconds, how long the requests took that were due in one of the windows. One that failed
// took as long as it took to fail: it counts elsewhere.
func latencies(all []sample, windows ...window) bench.Series {
	var took bench.Series
	for _, s := range all {
		for _, w := range windows {
			if w.holds(s.due) {
				took = append(took, milliseconds(s.done.Sub(s.due)))
				break
			}
		}
	}
	return took
}

// firstAnswer returns when a release first had answered a request that was due no earlier than the given time.
func firstAnswer(all []sample, release string, after time.Time) (first time.Time, ok bool) {
	for _, s := range all {
		if s.release != release || s.failure != "" || s.due.Before(after) {
			continue
		}
		if !ok || s.done.Before(first) {
			first, ok = s.done, true
		}
	}
	return first, ok
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
