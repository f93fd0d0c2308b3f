// Package fair shares among callers what there is too little of.
//
// The one rule: a caller never takes the last of anything while it holds more than there is left. So however much some
// ask for, there is room for one who has nothing yet, and it does not wait behind them.
//
// [Slots] are had at once or not at all, [Queue] makes callers wait for their turn.
package fair

import (
	"fmt"
	"time"
)

// A RefusedError means that there is no room for the caller now: it should come back, and not at once.
type RefusedError struct {
	Why   string        // for operators
	Late  bool          // the caller had a place and its turn did not come in time: it is not too much of its own
	Retry time.Duration // when to come back, by how long others take
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s, for about %s", e.Why, e.Retry)
}

// fits reports whether a caller that holds some may have one more of those left. One that is alone gets half of all; of
// two that take all they can get, each a third; there is always a part left for the next.
func fits(held, left int) bool { return held < left }
