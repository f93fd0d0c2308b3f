// Package digest checks weight files while they stream past.
//
// The one rule: the bytes of a file are unverified until [Check] hands over a [Result] for it that [Result.OK] accepts.
// Check reads every file once, from its first byte to its end, and compares each part with the approved digest; it goes
// on after a mismatch, so that a report can name every bad part and not only the first.
//
// Reading, hashing and landing overlap, in a fixed amount of memory whatever the size of the files. Parts are
// independent of each other, so that several are hashed at the same time: one pair on each core where the processor
// gains from that (package lanes).
package digest

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"golang.org/x/crypto/blake2b"
	"lukechampine.com/blake3"

	"github.com/weighbridge/weighbridge/verifier/digest/lanes"
)

// An Algorithm is a hash named as in an OMS manifest. Its zero value is no algorithm: [Algorithm.Size] is 0 and
// [Check] refuses it.
type Algorithm string

// The algorithms of the OMS algorithm registry.
const (
	SHA256  Algorithm = "sha256"
	BLAKE2b Algorithm = "blake2b" // BLAKE2b-512
	BLAKE3  Algorithm = "blake3"  // 256 bits
)

// A file that changed under the reader has neither of the two contents: there is no verdict about it. Read it again
// when whatever writes it is done.
var (
	ErrGrew   = errors.New("it grew while it was read")
	ErrShrank = errors.New("it shrank while it was read")
)

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
		return lanes.New()
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

// width is how many parts a core hashes at once with gain.
func (a Algorithm) width() int {
	if a == SHA256 {
		return lanes.Width()
	}
	return 1
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

// A File is one file to be checked. Check calls its functions once each, and never two of any files at the same time.
type File struct {
	// Open is called when the file's turn comes, so that only a few are open at a time.
	Open func() (Input, error)
	// Done is called when all is known about the file, also if Open failed or Check was given up. Nothing reads
	// Source or writes Target from then on. An error gives the whole Check up.
	Done func(Result) error
}

// An Input is an opened file.
type Input struct {
	// Source is read in blocks of blockSize bytes at multiples of that, each once and several at the same time, into
	// memory that direct reads accept. It must return [io.EOF] where the file ends.
	Source io.ReaderAt
	// Size is how many bytes the file has. If it turns out to have more or fewer the result is ErrGrew or ErrShrank.
	Size int64
	// Parts cover the approved file from its first byte without gap or overlap, in order.
	Parts []Part
	// Target gets each byte once, if it is not nil. Its error gives the whole Check up.
	Target io.WriterAt
}

// A Result is what became of one file.
type Result struct {
	Bytes      int64      // that were read
	Mismatches []Mismatch // in order of the file
	Err        error      // why there is no verdict: the file could not be read, or Check was given up

	Read, Copy, Hash Phase
}

// OK reports whether the file is the approved one.
func (r Result) OK() bool { return r.Err == nil && len(r.Mismatches) == 0 }

// A Phase is one kind of work on a file. The phases of a file overlap.
type Phase struct {
	Start, End time.Time     // of the first and of the last piece of work; zero if there was none
	Busy       time.Duration // all pieces together; of reading it is the time waited for the device
}

func (p *Phase) add(start, end time.Time, busy time.Duration) {
	if p.Start.IsZero() || start.Before(p.Start) {
		p.Start = start
	}
	if end.After(p.End) {
		p.End = end
	}
	p.Busy += busy
}
