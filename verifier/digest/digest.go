// Package digest checks weight files while they stream past.
//
// The one rule: bytes that went through [Copy] are unverified until it returns
// no mismatch and no error. Copy reads its source once, to the end, and compares
// every part against the approved digest; it goes on after a mismatch so that a
// report can name every bad part of a file, not only the first.
package digest

// An Algorithm is a hash named as in an OMS manifest. Its zero value is no
// algorithm and [Algorithm.New] refuses it.
type Algorithm string

const (
	SHA256  Algorithm = "sha256"
	BLAKE2b Algorithm = "blake2b" // BLAKE2b-512
	BLAKE3  Algorithm = "blake3"  // 256 bits
)

// A Part is the byte range [Start, End) of a file and its approved digest.
type Part struct {
	Name       string // the resource's name in the manifest, "weights.bin:0:1000000" or "weights.bin"
	Start, End int64  // bytes; End is ToEnd for a part that is the whole file, whatever its size
	Sum        []byte // raw digest
}

// ToEnd is the End of a part that ends where the file ends.
const ToEnd int64 = -1

// A Mismatch is one part whose bytes are not the approved ones.
type Mismatch struct {
	Part   Part
	End    int64  // where the part really ended, bytes
	Actual []byte // raw digest of what was read; nil if nothing was there
}
