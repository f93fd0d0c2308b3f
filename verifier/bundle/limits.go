package bundle

import "github.com/weighbridge/weighbridge/verifier/statement"

// Bounds on what is read before anything in it was checked.
const (
	maxEntries  = 1 << 20             // files in an archive
	maxManifest = 16 << 20            // bytes of the index, or of one manifest
	maxLayer    = statement.MaxBundle // bytes of a statement, or of a policy with all its signatures
	maxSmall    = 512 << 20           // bytes of all that is held in memory: the index, manifests, statements and policies
)
