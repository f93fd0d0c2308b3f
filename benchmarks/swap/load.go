package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// The load. It leaves a machine of two cores time to spare: one that is saturated has no latency that could be compared.
const (
	callers = 16
	rate    = 64 // requests a second, of all callers

	// requestLimit is what a caller waits at most; it then counts the request as failed.
	requestLimit = 30 * time.Second
)

// A sample is one request.
type sample struct {
	due     time.Time // when it was to be sent, whether or not it was
	done    time.Time // when the answer was there, whole
	release string    // that answered
	failure string    // empty: it was answered
	mixed   string    // how the answer is not that of the release; empty: it is
}

// A load asks at its rate until it is ended.
type load struct {
	begun time.Time
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu      sync.Mutex
	samples []sample
}

// startLoad has every caller ask at even intervals, one after the other; every other one has its answers streamed. A
// caller does not wait for its answers before it asks again.
func startLoad(all []*site.Caller, sentence func(release string) string) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{begun: time.Now(), stop: stop}
	for n, c := range all {
		l.done.Go(func() {
			clock := time.NewTimer(0)
			defer clock.Stop()
			for turn := 0; ; turn++ {
				due := l.begun.Add(dueAfter(n, turn, len(all)))
				clock.Reset(time.Until(due))
				select {
				case <-clock.C:
				case <-ctx.Done():
					return
				}
				l.done.Go(func() { l.add(ask(c, due, n%2 == 0, sentence)) })
			}
		})
	}
	return l
}

// dueAfter says when, after the beginning, a caller's turn is.
func dueAfter(caller, turn, of int) time.Duration {
	return time.Duration(turn*of+caller) * time.Second / rate
}

func (l *load) add(s sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
}

// end returns all requests, once the last one is answered.
func (l *load) end() []sample {
	l.stop()
	l.done.Wait()
	return l.samples
}

// ask is one request. It is answered whatever becomes of the load: one that was broken off would count as failed.
func ask(c *site.Caller, due time.Time, stream bool, sentence func(release string) string) sample {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	a, err := c.Ask(ctx, site.Question{Text: "Who are you?", Stream: stream})
	s := sample{due: due, done: time.Now(), release: a.Release}
	want := sentence(a.Release)
	switch {
	case err != nil:
		s.failure = err.Error()
	case a.Status != http.StatusOK:
		s.failure = fmt.Sprintf("%d %s", a.Status, a.Body)
	case a.Text != want:
		s.mixed = fmt.Sprintf("%q, of release %q, want %q", a.Text, a.Release, want)
	}
	return s
}
