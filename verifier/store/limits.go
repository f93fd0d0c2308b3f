package store

// Bounds on what is read from directories that anyone may have filled. Those of package statement bound what holds
// statements.
const (
	maxStatementFiles = 100_000  // per directory
	maxWeightEntries  = 100_000  // per directory
	maxFloorFile      = 16 << 20 // bytes
	maxBackup         = 1 << 30  // bytes
)
