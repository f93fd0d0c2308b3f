// Package digest checks weight files while they stream past.
//
// The one rule: bytes that went through [Copy] are unverified until it returns no mismatch and no error. Copy reads
// its source once, to the end, and compares every part against the approved digest; it goes on after a mismatch, so
// that a report can name every bad part of a file and not only the first.
package digest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/blake2b"
	"lukechampine.com/blake3"
)

// An Algorithm is a hash named as in an OMS manifest. Its zero value is no algorithm: [Algorithm.Size] is 0 and
// [Copy] refuses it.
type Algorithm string

// The algorithms of the OMS algorithm registry.
const (
	SHA256  Algorithm = "sha256"
	BLAKE2b Algorithm = "blake2b" // BLAKE2b-512
	BLAKE3  Algorithm = "blake3"  // 256 bits
)

// ErrTooLong means that the source holds more bytes than the caller allowed. What was copied is worth nothing.
var ErrTooLong = errors.New("longer than allowed")

// ParseAlgorithm accepts exactly the three names of the registry, in their one spelling.
func ParseAlgorithm(s string) (Algorithm, error) {
	if a := Algorithm(s); a.Size() > 0 {
		return a, nil
	}
	return "", fmt.Errorf("unknown hash algorithm %q, want sha256, blake2b or blake3", s)
}

// New returns a new hash. It panics for an Algorithm that [ParseAlgorithm] refuses.
func (a Algorithm) New() hash.Hash {
	switch a {
	case SHA256:
		return sha256.New()
	case BLAKE2b:
		h, err := blake2b.New512(nil)
		if err != nil {
			panic("digest: internal error: " + err.Error())
		}
		return h
	case BLAKE3:
		return blake3.New(32, nil)
	}
	panic(fmt.Sprintf("digest: internal error: unknown algorithm %q", string(a)))
}

// Size returns the length of a raw digest in bytes, 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case SHA256, BLAKE3:
		return 32
	case BLAKE2b:
		return 64
	}
	return 0
}

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
	Part   Part   // Sum is nil for bytes that no part covers: they lie behind the last approved one
	End    int64  // where the part really ended, bytes
	Actual []byte // raw digest of what was read; nil if nothing was there
}
