package scrub

import "time"

const (
	// firstAfter is how long after its start a gateway has its copies read for the first time: by then what it serves is
	// loaded, which needs the disk more.
	firstAfter = 5 * time.Minute
	// lookEvery is how often it is looked at what is needed and whether a copy was changed, which reads nothing of it. It is
	// also how soon a copy may be read again, whatever becomes of it.
	lookEvery = time.Minute
	// maxRestless is how often in a row a copy may have been changed while it was read before what was found is told all
	// the same: until then it is being written, or somebody wants it to look so.
	maxRestless = 10

	// maxShown bounds the problems of one copy that are told; weighbridge model verify tells all.
	maxShown = 3
	// maxStats bounds the files of one copy whose times are compared. Of one with more the rest is found when it is read.
	maxStats = 4096

	// burst is how much may be read before the rate counts.
	burst = 4 << 20
	// answerAfter is how long what a dead reading process has written is waited for.
	answerAfter = 5 * time.Second
)
