package receipt

import "time"

// Bounds on what a gateway keeps for callers to fetch. A receipt takes some 4 KiB beside the statements of its release,
// which all receipts of that release share.
const (
	// maxAge is how long a receipt is kept once it is recorded.
	maxAge = time.Hour
	// maxKept bounds the receipts of all callers, and maxBytes what they take. When either is reached, the oldest of the
	// caller that has the most goes.
	maxKept  = 16384
	maxBytes = 128 << 20
	// maxKeptOfCaller bounds those of one caller, of which the oldest goes.
	maxKeptOfCaller = 2048
	// maxPending bounds the calls with a receipt that are being answered or recorded, and maxPendingOfCaller those of one
	// caller: when the log does not answer, calls that ask for a receipt are refused.
	maxPending         = 4096
	maxPendingOfCaller = 1024
)

const (
	// recordLimit is how long the log may take to record one receipt, and so how long a shutdown waits for it.
	recordLimit = 30 * time.Second
	// fetchWait is how long a caller's question waits for a receipt that is being recorded.
	fetchWait = 10 * time.Second
)

// Bounds on a document.
const (
	nonceSize     = 32
	maxStatements = 1024
	// MaxFetched is more than a gateway's document: the statements of one release, in base64.
	MaxFetched = 128 << 20
	// MaxContent bounds a request, or a response, that a client adds.
	MaxContent = 64 << 20
	// MaxDocument bounds a whole document.
	MaxDocument = MaxFetched + 3*MaxContent
)
