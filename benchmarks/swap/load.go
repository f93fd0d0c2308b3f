package main

import (
	"fmt"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// The load. It leaves a machine of two cores time to spare: one that is saturated has no latency that could be compared.
const (
	callers = 16
	rate    = 64 // requests a second, of all callers
)

// startLoad has all callers ask, every other one for a stream.
func (w *world) startLoad() *site.Load {
	return site.StartLoad(site.LoadConfig{
		Callers: w.callers, Rate: rate,
		Question: func(caller int) site.Question { return site.Question{Text: "Who are you?", Stream: caller%2 == 0} },
		Check:    w.mixed,
	})
}

// mixed says how an answer is not that of the release that it names.
func (w *world) mixed(a site.Answer) string {
	if want := w.says(a.Release); a.Text != want {
		return fmt.Sprintf("%q, of release %q, want %q", a.Text, a.Release, want)
	}
	return ""
}

// firstAnswer returns when a release first had answered a request that was due no earlier than the given time.
func firstAnswer(all []site.Sample, release string, after time.Time) (first time.Time, ok bool) {
	for _, s := range all {
		if s.Release != release || s.Failure != "" || s.Due.Before(after) {
			continue
		}
		if !ok || s.Done.Before(first) {
			first, ok = s.Done, true
		}
	}
	return first, ok
}
