package process

import "time"

// deathTimeout is how long a runtime that can't be reached may take to be found dead. One that lives lost its socket, or
// this process has no descriptor left to reach it: callers must not wait for that to pass.
const deathTimeout = 5 * time.Second

// Bounds on what a child may make this process keep or write.
const (
	maxReport    = 64 << 10 // bytes of the sandbox's report
	maxDialError = 1 << 10  // bytes of the reason why a connection was not made

	maxLine  = 2 << 10 // bytes of one line of output; the rest of it is dropped
	tailSize = 12      // last lines kept for error messages

	maxLines  = 200 // lines of output that are logged in one logWindow; more are counted
	logWindow = 10 * time.Second
)
