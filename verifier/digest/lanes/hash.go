// Package lanes computes SHA-256 of two byte strings at once on one core.
//
// The one rule: a [Hash] gives what crypto/sha256 gives, however its bytes arrive and whatever is hashed beside it.
//
// A core with the SHA instructions spends half of its time waiting for the last one to finish, because each round of
// SHA-256 needs the one before. Two independent byte strings have no such bond: [WritePair] interleaves their rounds.
// Without those instructions, and on other processors, all is left to crypto/sha256. The choice is made once, at start.
package lanes

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Width is how many byte strings a core hashes at once with gain: 2, or 1 where WritePair only does one after the other.
func Width() int {
	if accelerated {
		return 2
	}
	return 1
}

// A Hash is one SHA-256 computation, a [hash.Hash]. It must be made by [New], and not be used concurrently.
type Hash struct {
	std hash.Hash // does everything, where this processor has no SHA instructions; else nil

	state  [8]uint32
	rest   [sha256.BlockSize]byte // what does not fill a block yet
	filled int                    // bytes in rest
	length uint64                 // bytes in all
}

var _ hash.Hash = (*Hash)(nil)

// initial is the state before the first block (FIPS 180-4 section 5.3.3).
var initial = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// New returns a new computation.
func New() *Hash {
	if !accelerated {
		return &Hash{std: sha256.New()}
	}
	return &Hash{state: initial}
}

// maxBlocks bounds one call of the assembly, which can't be preempted: 256 KiB take less than a tenth of a millisecond.
const maxBlocks = 4096

// WritePair adds p to a and q to b. It is faster than two calls of Write the closer p and q are in length.
func WritePair(a *Hash, p []byte, b *Hash, q []byte) {
	if a.std == nil && b.std == nil {
		p, q = a.align(p), b.align(q)
		for len(p) >= sha256.BlockSize && len(q) >= sha256.BlockSize {
			n := min(len(p)/sha256.BlockSize, len(q)/sha256.BlockSize, maxBlocks)
			blockPair(&a.state, &b.state, &p[0], &q[0], n)
			p, q = a.took(p, n), b.took(q, n)
		}
	}
	a.write(p)
	b.write(q)
}

// Write adds p. It never fails.
func (h *Hash) Write(p []byte) (int, error) {
	h.write(p)
	return len(p), nil
}

func (h *Hash) write(p []byte) {
	if h.std != nil {
		h.std.Write(p)
		return
	}
	p = h.align(p)
	for len(p) >= sha256.BlockSize {
		n := min(len(p)/sha256.BlockSize, maxBlocks)
		block(&h.state, &p[0], n)
		p = h.took(p, n)
	}
	h.filled += copy(h.rest[h.filled:], p)
	h.length += uint64(len(p))
}

// took counts n blocks of p that were hashed, and returns what is left of it.
func (h *Hash) took(p []byte, n int) []byte {
	h.length += uint64(n) * sha256.BlockSize
	return p[n*sha256.BlockSize:]
}

// align completes a block that was begun with the first bytes of p, and returns the others. If p is too short for that
// it returns p as it is.
func (h *Hash) align(p []byte) []byte {
	if h.filled == 0 || h.filled+len(p) < sha256.BlockSize {
		return p
	}
	n := copy(h.rest[h.filled:], p)
	block(&h.state, &h.rest[0], 1)
	h.filled = 0
	h.length += uint64(n)
	return p[n:]
}

// Sum appends the digest of all that was written. The computation may go on.
func (h *Hash) Sum(b []byte) []byte {
	if h.std != nil {
		return h.std.Sum(b)
	}
	// A one bit, zeros, and the length in bits (FIPS 180-4 section 5.1.1), in as many blocks as it takes.
	var last [2 * sha256.BlockSize]byte
	copy(last[:], h.rest[:h.filled])
	last[h.filled] = 0x80
	blocks := 1
	if h.filled+1+8 > sha256.BlockSize {
		blocks = 2
	}
	binary.BigEndian.PutUint64(last[blocks*sha256.BlockSize-8:], h.length*8)
	state := h.state
	block(&state, &last[0], blocks)
	for _, word := range state {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return b
}

// Reset begins a new computation.
func (h *Hash) Reset() { *h = *New() }

// Size returns 32.
func (h *Hash) Size() int { return sha256.Size }

// BlockSize returns 64.
func (h *Hash) BlockSize() int { return sha256.BlockSize }
