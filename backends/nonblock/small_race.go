//go:build race

package nonblock

// The race detector must see what comes before what: it knows package syscall's calls alone.
const small = 0
