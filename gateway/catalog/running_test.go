package catalog

import "testing"

// TestRetiredIsNotAcquired is in this package since from outside the moment between a switch and the end of the last
// request on the old release can't be held.
func TestRetiredIsNotAcquired(t *testing.T) {
	r := &running{idle: make(chan struct{})}
	if !r.acquire() {
		t.Fatal("acquire() = false, want true while it serves")
	}
	r.closing = true // as retire does, before it waits
	if r.acquire() {
		t.Error("acquire() = true on a release that is being retired, want false: its runtime is about to stop")
	}
	r.done()
	select {
	case <-r.idle:
	default:
		t.Error("idle is open after the last request, want it closed")
	}
}
