package digest

import (
	"bytes"
	"fmt"
	"hash"
	"sort"
)

// A chain hashes one part, block after block.
type chain struct {
	reading  *reading
	part     Part  // as approved, or the bytes behind the last approved part
	at, end  int64 // the next byte to be hashed, and where the part ends in this file
	hash     hash.Hash
	actual   []byte // the digest, once at has come to end
	isQueued bool   // it is ready, or being hashed
}

// newChains returns the chains of a file: one for each part that has bytes in it or is the whole of an empty file, and
// one for the bytes behind the last part. Parts that lie wholly behind the end have none.
func newChains(r *reading, in Input) ([]chain, error) {
	var chains []chain
	var at int64
	for i, p := range in.Parts {
		switch {
		case p.Start != at:
			return nil, fmt.Errorf("part %q starts at byte %d, want %d", p.Name, p.Start, at)
		case p.End == ToEnd && i < len(in.Parts)-1, p.End != ToEnd && p.End <= p.Start:
			return nil, fmt.Errorf("part %q ends at byte %d", p.Name, p.End)
		}
		at = p.End
		end := min(p.End, in.Size)
		if p.End == ToEnd {
			end = in.Size
		}
		if end > p.Start || p.End == ToEnd {
			chains = append(chains, chain{reading: r, part: p, at: p.Start, end: max(end, p.Start)})
		}
	}
	if at != ToEnd && at < in.Size {
		chains = append(chains, chain{reading: r, part: Part{Start: at, End: ToEnd}, at: at, end: in.Size})
	}
	return chains, nil
}

// mismatches compares the digests of a file that was hashed to its end with the approved ones.
func mismatches(chains []chain, in Input) (bad []Mismatch) {
	for i := range chains {
		c := &chains[i]
		cut := c.part.End != ToEnd && c.part.End > c.end
		if cut || !bytes.Equal(c.actual, c.part.Sum) {
			bad = append(bad, Mismatch{Part: c.part, End: c.end, Actual: c.actual})
		}
	}
	for _, p := range in.Parts {
		if p.Start >= in.Size && p.End != ToEnd {
			bad = append(bad, Mismatch{Part: p, End: in.Size})
		}
	}
	return bad
}

// overlapping returns the chains with bytes in the range.
func overlapping(chains []chain, start, end int64) []chain {
	first := sort.Search(len(chains), func(i int) bool { return chains[i].end > start })
	last := first + sort.Search(len(chains)-first, func(i int) bool { return chains[first+i].part.Start >= end })
	return chains[first:last]
}

// next returns the block with the chain's next byte, nil while it is not in memory.
func (c *chain) next() *block { return c.reading.blocks[c.at/blockSize] }

// segment returns the chain's bytes in the block.
func (c *chain) segment(b *block) []byte {
	start := b.number * blockSize
	return b.data[c.at-start : min(c.end, start+int64(len(b.data)))-start]
}

// advance counts n bytes as hashed.
func (c *chain) advance(n int) {
	if c.at += int64(n); c.at == c.end {
		c.actual = c.hash.Sum(nil)
		c.hash = nil
	}
}
