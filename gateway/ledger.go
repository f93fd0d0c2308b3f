package gateway

import (
	"sync"
	"time"
)

const (
	// recordedWithin is how long after its end a request is recorded that was answered, or was too much.
	recordedWithin = 250 * time.Millisecond
	// maxUnrecorded is how many may wait for that; who ends the next waits until they are.
	maxUnrecorded = 64
)

// A ledger holds the requests that have ended until they are recorded, in the access log and in the metrics: together, soon
// after. Where requests come one by one the processor's caches have lost that code each time, and to fetch it again takes longer
// than to run it; where one caller asks for far too much, others wait for all that is spent on what it is refused. What else
// went wrong is recorded at once, and all before it.
type ledger struct {
	mu      sync.Mutex
	pending []*observation // in the order in which they ended

	recording sync.Mutex // what was taken from pending, so that the order stays
}

// add has a request recorded that has ended. Whoever adds waits for the log when that is behind.
func (l *ledger) add(o *observation) {
	l.mu.Lock()
	l.pending = append(l.pending, o)
	first, now := len(l.pending) == 1, o.err != nil && !tooMuch(o.err) || len(l.pending) >= maxUnrecorded
	l.mu.Unlock()
	switch {
	case now:
		l.flush()
	case first:
		time.AfterFunc(recordedWithin, l.flush)
	}
}

// flush records all that wait for it, and returns when that is done.
func (l *ledger) flush() {
	l.recording.Lock()
	defer l.recording.Unlock()
	l.mu.Lock()
	all := l.pending
	l.pending = nil
	l.mu.Unlock()
	for _, o := range all {
		o.record()
	}
}
