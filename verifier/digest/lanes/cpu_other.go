//go:build !amd64

package lanes

// accelerated is never true: crypto/sha256 does everything.
var accelerated = false

const unreachable = "lanes: internal error: no assembly on this architecture"

func block(*[8]uint32, *byte, int)                        { panic(unreachable) }
func blockPair(*[8]uint32, *[8]uint32, *byte, *byte, int) { panic(unreachable) }
