package audit

import "time"

// Bounds on one record.
const (
	maxText  = 2048     // bytes of an identity or a caller: the longest SPIFFE ID
	maxName  = 128      // bytes of a channel, a rule or a level
	maxWhy   = 1024     // bytes of a reason, which is cut there
	maxCount = 1 << 53  // what JSON carries exactly everywhere
	maxEntry = 16 << 10 // bytes of a record as written, more than all of the above with every character escaped
)

// Bounds on what is read from a directory that anyone may have filled.
const (
	maxBundle     = tileWidth * (2 + maxEntry)
	maxCheckpoint = 64 << 10 // bytes, with the signatures of many witnesses
	maxProof      = 256 << 10
)

const (
	// maxBatch bounds what is written at once, and so what a crash can leave beyond the checkpoint.
	maxBatch = tileWidth
	// maxQueued bounds the records in memory that no act waits for. Those that others can cause at will, by calling or by
	// sending statements, get half of it, so that they can't displace a withdrawal.
	maxQueued = 4096
	// maxRefused bounds the callers that are told apart within a minute.
	maxRefused = 1024
	// maxReads is how often a log that grows meanwhile is looked at again.
	maxReads = 100

	// DefaultReserve is more than one batch of the largest records takes.
	DefaultReserve = 8 << 20
	// reserveStep is how much of the reserve is given up at once. A batch of usual records takes less.
	reserveStep = 256 << 10

	// retryAfter is how soon what could not be written is tried again.
	retryAfter = time.Second
	// closeTries is how often that is tried when the log is closed: a disk that is broken must not keep a gateway from ending.
	closeTries = 2
	// refillAfter is how soon room is looked for again for a reserve that is not whole and that no act waits for.
	refillAfter = 10 * time.Second
	// refusedEvery is how long the refusals of one caller are counted together.
	refusedEvery = time.Minute
)
