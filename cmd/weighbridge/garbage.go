package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage may be there before it is collected; GOGC says otherwise. Idle connections are most of a busy gateway's
// memory: 10,000 take some 380 MiB by gcPercent, and 450 by Go's own 100. What little others use would be marked for a few
// megabytes of garbage each time, which takes as long as an eighth of all that is done for requests: so gcRoom is left in any case.
const (
	gcPercent = 15       // of the memory in use
	gcRoom    = 32 << 20 // bytes
)

// leaveRoom sets how often garbage is collected, now and after each collection, by what that has left.
func leaveRoom() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var collected func(struct{})
	collected = func(struct{}) {
		metrics.Read(live)
		debug.SetGCPercent(percentOf(live[0].Value.Uint64()))
		runtime.AddCleanup(new(*byte), collected, struct{}{}) // of what nothing holds: the next collection calls it
	}
	collected(struct{}{})
}

// percentOf is the garbage allowed to so much memory in use, in percent of it.
func percentOf(live uint64) int { return int(max(gcPercent, gcRoom*100/max(live, 1<<20))) }
