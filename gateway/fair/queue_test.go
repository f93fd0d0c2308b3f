package fair_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weighbridge/weighbridge/gateway/fair"
)

const patience = time.Minute

func newQueue(slots, places int) *fair.Queue {
	return fair.NewQueue(fair.Config{Slots: slots, Places: places, Patience: patience})
}

// A record is what became of the requests of a test, in the order in which they had their turns.
type record struct {
	mu    sync.Mutex
	turns []string
	waits map[string]time.Duration // the longest of each caller
	wg    sync.WaitGroup
}

// ask sends a request whose turn takes so long, and returns when it waits or has its turn.
func (r *record) ask(t *testing.T, q *fair.Queue, caller string, takes time.Duration) {
	begun := time.Now()
	r.wg.Go(func() {
		leave, err := q.Enter(t.Context(), caller)
		if err != nil {
			t.Errorf("Enter(%s) = %v", caller, err)
			return
		}
		defer leave()
		r.mu.Lock()
		r.turns = append(r.turns, caller)
		if r.waits == nil {
			r.waits = map[string]time.Duration{}
		}
		r.waits[caller] = max(r.waits[caller], time.Since(begun))
		r.mu.Unlock()
		time.Sleep(takes)
	})
	synctest.Wait()
}

// TestQueueTakesTurns wants callers to have turns one after the other, however many requests each has waiting.
func TestQueueTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, r := newQueue(1, 100), &record{}
		for range 4 {
			r.ask(t, q, "a", time.Second)
		}
		for range 2 {
			r.ask(t, q, "b", time.Second)
		}
		r.ask(t, q, "c", time.Second)
		r.wg.Wait()
		if want := []string{"a", "b", "c", "a", "b", "a", "a"}; !slices.Equal(r.turns, want) {
			t.Errorf("turns = %v, want %v", r.turns, want)
		}
	})
}

// TestQueueCountsTime gives who takes long fewer turns: what is shared is the time.
func TestQueueCountsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, r := newQueue(1, 100), &record{}
		for range 3 {
			r.ask(t, q, "long", 3*time.Second)
		}
		for range 6 {
			r.ask(t, q, "short", time.Second)
		}
		r.wg.Wait()
		want := []string{"long", "short", "short", "short", "long", "short", "short", "short", "long"}
		if !slices.Equal(r.turns, want) {
			t.Errorf("turns = %v, want %v", r.turns, want)
		}
	})
}

// TestQueueCountsWhatLasts counts a turn from its beginning, not only once it has ended.
func TestQueueCountsWhatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, r := newQueue(2, 100), &record{}
		r.ask(t, q, "long", 10*time.Second)
		r.ask(t, q, "short", 5*time.Second)
		r.ask(t, q, "long", time.Second)
		r.ask(t, q, "new", time.Second)
		r.wg.Wait()
		if want := []string{"long", "short", "new", "long"}; !slices.Equal(r.turns, want) {
			t.Errorf("turns = %v, want %v", r.turns, want)
		}
	})
}

// TestQueueForTheQuiet has a loud caller with as many requests as it can have, all the time, and one who asks now and
// then: it waits for one turn to end at most, for all its absences, and the loud one never comes to a stop.
func TestQueueForTheQuiet(t *testing.T) {
	for _, slots := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d slots", slots), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, r := newQueue(slots, 100), &record{}
				for range 200 {
					for q.Waiting() < 40 {
						r.ask(t, q, "loud", time.Second)
					}
					r.ask(t, q, "quiet", 100*time.Millisecond)
					time.Sleep(700 * time.Millisecond)
				}
				r.wg.Wait()
				if got := r.waits["quiet"]; got > time.Second {
					t.Errorf("the quiet caller waited up to %s, want at most the rest of one turn of a second", got)
				}
				if got := r.waits["loud"]; got > patience {
					t.Errorf("the loud caller waited %s", got)
				}
			})
		})
	}
}

// TestQueueAbsence makes nobody wait because of what was had long ago, and gives nobody credit for it.
func TestQueueAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, r := newQueue(1, 100), &record{}
		for range 20 {
			r.ask(t, q, "a", time.Second)
		}
		r.ask(t, q, "b", time.Second)
		time.Sleep(15 * time.Second)
		// c has had nothing of those 15 seconds, and gets every second turn all the same.
		for range 4 {
			r.ask(t, q, "c", time.Second)
		}
		r.wg.Wait()
		if got, want := r.turns[15:], []string{"c", "a", "c", "a", "c", "a"}; !slices.Equal(got[:len(want)], want) && !slices.Equal(got[1:len(want)+1], want) {
			t.Errorf("turns = %v, want c and a by turns", got)
		}
		if q.Callers() != 0 {
			t.Errorf("%d callers are remembered with nobody there", q.Callers())
		}
	})
}

func TestQueueUsesAllSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, r := newQueue(3, 100), &record{}
		begun := time.Now()
		for range 12 {
			r.ask(t, q, "a", time.Second)
		}
		r.wg.Wait()
		if took := time.Since(begun); took != 4*time.Second {
			t.Errorf("12 turns of a second took %s on 3 slots, want 4s", took)
		}
	})
}

// TestQueuePlaces leaves a place for who has none, and says when to come back.
func TestQueuePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, r := newQueue(1, 8), &record{}
		for range 5 {
			r.ask(t, q, "loud", 2*time.Second)
		}
		_, err := q.Enter(t.Context(), "loud")
		if no := new(fair.RefusedError); !errors.As(err, &no) || no.Late || no.Retry < time.Second || no.Retry > patience {
			t.Errorf("Enter = %v, want it refused: 4 wait, and 4 places are left", err)
		}
		r.ask(t, q, "quiet", 2*time.Second)
		r.wg.Wait()
		if r.turns[1] != "quiet" {
			t.Errorf("turns = %v, want the quiet caller second", r.turns)
		}
	})
}

// TestQueuePatience refuses who has waited too long, and leaves nothing behind.
func TestQueuePatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1, 8)
		leave, err := q.Enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err = q.Enter(t.Context(), "b")
		if no := new(fair.RefusedError); !errors.As(err, &no) || !no.Late || time.Since(begun) != patience {
			t.Errorf("Enter = %v after %s, want it refused as late after %s", err, time.Since(begun), patience)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Enter(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) || q.Waiting() != 0 {
			t.Errorf("Enter = %v with %d waiting, want the context's error and nobody", err, q.Waiting())
		}
		leave()
		leave() // does nothing
		for range 2 {
			leave, err := q.Enter(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			leave()
		}
	})
}

// TestQueueCloses sends away who waits, and lets who has a turn finish.
func TestQueueCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1, 8)
		leave, err := q.Enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := q.Enter(t.Context(), "b"); !errors.Is(err, fair.ErrClosed) {
					t.Errorf("Enter = %v, want ErrClosed", err)
				}
			})
		}
		synctest.Wait()
		q.Close()
		q.Close()
		wg.Wait()
		leave()
		if _, err := q.Enter(t.Context(), "a"); !errors.Is(err, fair.ErrClosed) {
			t.Errorf("Enter = %v once the queue is closed, want ErrClosed", err)
		}
	})
}

// TestQueueKeepsItsSlots has a caller give up at the very moment when its turn comes: the slot must not be lost.
func TestQueueKeepsItsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1, 100)
		given := map[bool]int{}
		for i := range 100 {
			leave, err := q.Enter(t.Context(), "first")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				leave, err := q.Enter(ctx, "second")
				if given[err == nil]++; err == nil {
					leave()
				}
			})
			synctest.Wait()
			if i%2 == 0 {
				leave()
			}
			cancel()
			leave()
			wg.Wait()
		}
		if given[true] == 0 || given[false] == 0 {
			t.Errorf("turns were taken and given up %v times, want both", given)
		}
	})
}

// TestQueueForgets keeps nothing of callers who have given up, while others are there.
func TestQueueForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1, 100)
		leave, err := q.Enter(t.Context(), "first")
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		for i := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := q.Enter(ctx, fmt.Sprint("caller ", i)); err == nil {
				t.Error("Enter = nil with the slot taken")
			}
			cancel()
		}
		if n := q.Callers(); n != 1 {
			t.Errorf("%d callers are remembered, want the one who has the slot", n)
		}
	})
}
