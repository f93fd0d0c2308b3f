package access

import "time"

const (
	// maxCondition bounds a condition's text.
	maxCondition = 4 << 10
	// conditionCost bounds its evaluation, in CEL's own units, of which a comparison takes one or two: well below a
	// millisecond.
	conditionCost = 10_000
	// maxAccounts bounds the callers that a [Meter] keeps account of, rule by rule: about 10 MB.
	maxAccounts = 1 << 16
	// swept is how many accounts are looked at, whether they can go, when a new one is opened.
	swept = 16
	// maxLimit is more than anybody is granted.
	maxLimit = 1 << 50
	// concurrentRetry is when to try again where a request of the caller's own must end first. Nobody knows when.
	concurrentRetry = time.Second
)
