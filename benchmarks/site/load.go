package site

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// requestLimit is what a caller waits at most; it then counts the request as failed.
const requestLimit = 30 * time.Second

// A Sample is one request.
type Sample struct {
	Due     time.Time // when it was to be sent, whether or not it was
	Done    time.Time // when the answer was there, whole
	Release string    // that answered
	Failure string    // empty: it was answered
	Wrong   string    // how the answer is not what it should be; empty: it is
}

// A LoadConfig says what is asked, and how often. All fields are required.
type LoadConfig struct {
	Callers  []*Caller
	Rate     int // requests a second, of all callers
	Question func(caller int) Question
	Check    func(Answer) (wrong string) // of answers with status 200
}

// A Load asks at its rate until it is ended.
type Load struct {
	Begun time.Time

	cfg  LoadConfig
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	samples []Sample
}

// StartLoad has every caller ask once in each of its intervals. A caller does not wait for its answers before it asks again.
func StartLoad(c LoadConfig) *Load {
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{Begun: time.Now(), cfg: c, stop: stop}
	for n, caller := range c.Callers {
		l.done.Go(func() {
			clock := time.NewTimer(0)
			defer clock.Stop()
			for turn := 0; ; turn++ {
				due := l.Begun.Add(c.dueAfter(n, turn))
				clock.Reset(time.Until(due))
				select {
				case <-clock.C:
				case <-ctx.Done():
					return
				}
				l.done.Go(func() { l.add(c.ask(caller, due, c.Question(n))) })
			}
		})
	}
	return l
}

// dueAfter says when, after the beginning, a caller's turn is: at any time within its interval, but at the same in each run. At
// even intervals it would meet what others do at even intervals always, or never.
func (c LoadConfig) dueAfter(caller, turn int) time.Duration {
	interval := time.Second / time.Duration(c.Rate)
	within := rand.New(rand.NewPCG(uint64(caller), uint64(turn))).Int64N(int64(interval)) //nolint:gosec // it is no secret
	return time.Duration(turn*len(c.Callers)+caller)*interval + time.Duration(within)
}

func (l *Load) add(s Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
}

// End returns all requests, once the last one is answered.
func (l *Load) End() []Sample {
	l.stop()
	l.done.Wait()
	return l.samples
}

// ask is one request. It is answered whatever becomes of the load: one that was broken off would count as failed.
func (c LoadConfig) ask(caller *Caller, due time.Time, q Question) Sample {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	a, err := caller.Ask(ctx, q)
	s := Sample{Due: due, Done: time.Now(), Release: a.Release}
	switch {
	case err != nil:
		s.Failure = err.Error()
	case a.Status != http.StatusOK:
		s.Failure = fmt.Sprintf("%d %s", a.Status, a.Body)
	default:
		s.Wrong = c.Check(a)
	}
	return s
}

// A Window is a span of time in which something went on.
type Window struct{ From, To time.Time }

func (w Window) holds(t time.Time) bool { return !t.Before(w.From) && t.Before(w.To) }

// Latencies returns, in milliseconds, how long the requests took that were due in one of the windows. One that failed
// took as long as it took to fail: it counts elsewhere.
func Latencies(all []Sample, windows ...Window) bench.Series {
	var took bench.Series
	for _, s := range all {
		for _, w := range windows {
			if w.holds(s.Due) {
				took = append(took, bench.Milliseconds(s.Done.Sub(s.Due)))
				break
			}
		}
	}
	return took
}

// Sleep waits, unless ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
