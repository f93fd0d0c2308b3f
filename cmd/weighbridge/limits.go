package main

// Bounds on what a gateway may send that is asked for its inputs. A directory of statements may be larger: then the files
// are decided by themselves.
const (
	maxAsked      = 1_000_000 // statements
	maxAskedBytes = 2 << 30   // of all statements together
)
