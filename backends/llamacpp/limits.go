package llamacpp

import "time"

const (
	// restartTimeout is how long a restart may load. The weights are in memory already, so that only mapping them and
	// the warm-up run take time: seconds for the largest, more on a machine that is busy with another load.
	restartTimeout = 2 * time.Minute

	// healthTimeout bounds one look at a runtime's health, which it answers at once or not at all.
	healthTimeout = 5 * time.Second

	// healthInterval is how often a runtime that loads is looked at.
	healthInterval = 20 * time.Millisecond

	// dialInterval is how often a runtime whose queue of connections is full is tried again.
	dialInterval = 5 * time.Millisecond

	// keepFor is how long a connection is kept for the next request. llama-server closes it after five seconds.
	keepFor = 2 * time.Second

	// letGo is how long a request that was given up is waited for.
	letGo = 800 * time.Millisecond

	// maxEmbedBatch is the longest text, in tokens, of a release that names neither ubatch-size nor a shorter context: what
	// embedding models have.
	maxEmbedBatch = 8192

	embedGroup = 16                     // texts embedded by one request to the runtime
	maxVectors = embedGroup * (1 << 20) // bytes of its answer: vectors of 40,000 numbers

	maxPredicted = 1e9 // milliseconds that an answer may be said to have taken

	maxHeader = 64 << 10 // bytes of the header of an answer
	maxLine   = 4 << 10  // bytes of one line of it
	maxEvent  = 1 << 20  // bytes of one line of a streamed answer: one token's text, or the usage
	maxWhole  = 32 << 20 // bytes of an answer that comes at once
	maxError  = 64 << 10 // bytes of an answer that is an error
)
