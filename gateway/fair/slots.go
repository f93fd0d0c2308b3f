package fair

import (
	"fmt"
	"sync"
	"time"
)

// slotsRetry is when to come back for a slot. They come free whenever any request ends.
const slotsRetry = time.Second

// Slots are had at once or not at all. They may be used concurrently.
type Slots struct {
	all int

	mu   sync.Mutex
	left int
	held map[string]int
}

// NewSlots returns n slots, all of them free.
func NewSlots(n int) *Slots { return &Slots{all: n, left: n, held: map[string]int{}} }

// Enter takes a slot for a caller until leave, which is called once, or returns a [*RefusedError].
func (s *Slots) Enter(caller string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.held[caller]; !fits(held, s.left) {
		why := fmt.Sprintf("the caller holds %d of %d requests in flight, and %d are left", held, s.all, s.left)
		return nil, &RefusedError{Why: why, Retry: slotsRetry}
	}
	s.left--
	s.held[caller]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.left++
		if s.held[caller]--; s.held[caller] == 0 {
			delete(s.held, caller)
		}
	}, nil
}
