package verifier

// Bounds on walking a model's directory, which is not trusted: it may hold anything.
const (
	maxEntries = 1 << 20 // files and directories seen, each time they are reached
	MaxDepth   = 128     // directories inside one another
)
