package digest

// How a file streams. A buffer is large enough for readahead and for the hash's inner loop, and small enough that
// the few that are in flight stay in the cache of the core that hashes them.
const (
	bufferSize = 1 << 20
	buffers    = 4
)
