package fair

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// ErrClosed means that nobody gets a turn at this queue any more: go to the one that took its place.
var ErrClosed = errors.New("the queue is closed")

// Config says how a queue is made. All fields are required.
type Config struct {
	Slots    int           // how many callers have their turn at a time
	Places   int           // how many may wait
	Patience time.Duration // how long one may wait
}

// A Queue has callers wait for their turns. When a slot comes free it goes to the caller who has had least of them,
// counted in time, and of that caller's requests to the one that came first. Who comes new, or again, begins level with
// those who wait: not having asked for anything before is no credit.
//
// Its methods may be called concurrently.
type Queue struct {
	cfg    Config
	closed chan struct{} // by Close
	close  func()

	mu      sync.Mutex
	free    int // slots; none while somebody waits
	waiting int
	callers map[string]*caller
	level   time.Duration // what the last caller had had that got a slot
	mean    time.Duration // a turn takes
	arrived int64         // requests, to know who came first
}

// A caller is somebody with a request here, or who has had more than the others.
type caller struct {
	had   time.Duration // of turns that ended
	turns []time.Time   // since when each that has not ended lasts
	line  []*place      // in the order of their arrival
}

// A place is a request that waits.
type place struct {
	number int64
	turn   chan struct{} // closed when it has its turn
	since  time.Time     // and when that was
}

// NewQueue returns an empty queue.
func NewQueue(c Config) *Queue {
	if c.Slots < 1 || c.Places < 1 || c.Patience <= 0 {
		panic(fmt.Sprintf("fair: internal error: a queue of %+v", c))
	}
	closed := make(chan struct{})
	return &Queue{cfg: c, closed: closed, close: sync.OnceFunc(func() { close(closed) }), free: c.Slots, callers: map[string]*caller{}}
}

// Enter returns when the caller has its turn, which lasts until leave; leave may be called more than once. It returns a
// [*RefusedError] at once if the caller's share of the places is taken, or when it has waited too long, [ErrClosed] once
// the queue is closed, and ctx's error if that ends first.
func (q *Queue) Enter(ctx context.Context, name string) (leave func(), err error) {
	q.mu.Lock()
	select {
	case <-q.closed:
		q.mu.Unlock()
		return nil, ErrClosed
	default:
	}
	c := q.caller(name)
	if q.free > 0 {
		since := q.begin(c)
		q.mu.Unlock()
		return q.leaver(name, since), nil
	}
	if !fits(len(c.line), q.cfg.Places-q.waiting) {
		defer q.mu.Unlock()
		why := fmt.Sprintf("the caller has %d requests waiting for the runtime, of %d, and there is room for %d", len(c.line), q.waiting, q.cfg.Places)
		return nil, &RefusedError{Why: why, Retry: q.retry()}
	}
	p := &place{number: q.arrived, turn: make(chan struct{})}
	q.arrived++
	q.waiting++
	c.line = append(c.line, p)
	q.mu.Unlock()

	late := time.NewTimer(q.cfg.Patience)
	defer late.Stop()
	select {
	case <-p.turn:
		return q.leaver(name, p.since), nil
	case <-q.closed:
		err = ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = &RefusedError{Why: fmt.Sprintf("the caller's turn at the runtime did not come in %s", q.cfg.Patience), Late: true, Retry: q.retryLater()}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(c.line, p); i >= 0 {
		c.line = slices.Delete(c.line, i, i+1)
		q.waiting--
		q.forget(name)
		return nil, err
	}
	// Its turn came at the same moment.
	q.end(name, p.since)
	return nil, err
}

// Close has those leave who wait, with [ErrClosed], and lets nobody in any more. Turns that last are not touched. It may
// be called more than once.
func (q *Queue) Close() { q.close() }

// Waiting returns how many requests wait.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

func (q *Queue) leaver(name string, since time.Time) func() {
	return sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.end(name, since)
	})
}

// caller returns what is known of a caller, who is level with the others at least.
func (q *Queue) caller(name string) *caller {
	c := q.callers[name]
	if c == nil {
		c = &caller{}
		q.callers[name] = c
	}
	if len(c.turns) == 0 && len(c.line) == 0 {
		c.had = max(c.had, q.level)
	}
	return c
}

// sum is what a caller has had until now, with its turns that last.
func (c *caller) sum(now time.Time) time.Duration {
	sum := c.had
	for _, since := range c.turns {
		sum += now.Sub(since)
	}
	return sum
}

// begin gives a caller a free slot.
func (q *Queue) begin(c *caller) (since time.Time) {
	since = time.Now()
	q.level = max(q.level, c.sum(since))
	q.free--
	c.turns = append(c.turns, since)
	return since
}

// end takes a slot back and gives it to whoever is next.
func (q *Queue) end(name string, since time.Time) {
	c, took := q.callers[name], time.Since(since)
	i := slices.Index(c.turns, since)
	c.turns = slices.Delete(c.turns, i, i+1)
	c.had += took
	q.mean += (took - q.mean) / 8
	q.free++
	q.next()
	q.forget(name)
}

// next gives the slot that came free to the caller who has had least.
func (q *Queue) next() {
	var next *caller
	now, least := time.Now(), time.Duration(math.MaxInt64)
	for _, c := range q.callers {
		if len(c.line) == 0 {
			continue
		}
		if sum := c.sum(now); next == nil || sum < least || sum == least && c.line[0].number < next.line[0].number {
			next, least = c, sum
		}
	}
	if next == nil {
		return
	}
	p := next.line[0]
	next.line = slices.Delete(next.line, 0, 1)
	q.waiting--
	p.since = q.begin(next)
	close(p.turn)
}

// forget drops a caller without requests once it is level with the others, or nobody is there to be compared with.
func (q *Queue) forget(name string) {
	if c := q.callers[name]; len(c.turns) == 0 && len(c.line) == 0 && c.had <= q.level {
		delete(q.callers, name)
	}
	if q.free < q.cfg.Slots || q.waiting > 0 {
		if len(q.callers) <= q.cfg.Slots+q.cfg.Places {
			return
		}
		for name, c := range q.callers { // more than have requests: so some have gone
			if len(c.turns) == 0 && len(c.line) == 0 {
				delete(q.callers, name)
			}
		}
		return
	}
	clear(q.callers)
	q.level = 0
}

// retry is how long those take who wait now.
func (q *Queue) retry() time.Duration {
	wait := q.mean * time.Duration(q.waiting) / time.Duration(q.cfg.Slots)
	return min(max(wait, time.Second), q.cfg.Patience)
}

func (q *Queue) retryLater() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.retry()
}
