package lanes_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/digest/lanes"
)

// noise returns n bytes that are always the same.
func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

func check(t *testing.T, what string, h *lanes.Hash, written []byte) {
	t.Helper()
	if want := sha256.Sum256(written); !bytes.Equal(h.Sum(nil), want[:]) {
		t.Fatalf("%s: Sum of %d bytes = %x, want %x", what, len(written), h.Sum(nil), want)
	}
}

// Every length around one and two blocks, alone and beside every other.
func TestLengths(t *testing.T) {
	p, q := noise(1, 300), noise(2, 300)
	for n := range p {
		h := lanes.New()
		h.Write(p[:n])
		check(t, "alone", h, p[:n])
		for m := 0; m < len(q); m += 7 {
			a, b := lanes.New(), lanes.New()
			lanes.WritePair(a, p[:n], b, q[:m])
			check(t, fmt.Sprintf("beside %d", m), a, p[:n])
			check(t, fmt.Sprintf("behind %d", n), b, q[:m])
		}
	}
}

func TestHash(t *testing.T) {
	h := lanes.New()
	if h.Size() != sha256.Size || h.BlockSize() != sha256.BlockSize {
		t.Errorf("Size, BlockSize = %d, %d", h.Size(), h.BlockSize())
	}
	if n, err := h.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("Write = %d, %v, want 3", n, err)
	}
	if got := fmt.Sprintf("%x", h.Sum([]byte{0xff})); got != "ffba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("Sum of abc = %s, want the example of FIPS 180-4 behind ff", got)
	}
	h.Write([]byte("d"))
	check(t, "after Sum", h, []byte("abcd"))
	h.Reset()
	check(t, "after Reset", h, nil)
}

// mixed feeds p and q to two computations in pieces of random length, now together and now alone, and returns the
// computations. It is what the differential tests and the fuzzing run.
func mixed(rng *rand.Rand, p, q []byte, piece int) (a, b *lanes.Hash) {
	a, b = lanes.New(), lanes.New()
	take := func(from *[]byte) []byte {
		n := min(len(*from), rng.IntN(piece+1))
		some := (*from)[:n]
		*from = (*from)[n:]
		return some
	}
	for len(p)+len(q) > 0 {
		switch rng.IntN(4) {
		case 0:
			a.Write(take(&p))
		case 1:
			b.Write(take(&q))
		case 2:
			lanes.WritePair(b, take(&q), a, take(&p))
		default:
			lanes.WritePair(a, take(&p), b, take(&q))
		}
	}
	return a, b
}

// manyBlocks is how many 64-byte blocks the differential test compares: over ten million, in about two seconds.
const manyBlocks = 10_500_000

func TestAgainstStandardLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var blocks int
	for want := manyBlocks; blocks < want; {
		p, q := noise(rng.Uint64(), rng.IntN(4<<20)), noise(rng.Uint64(), rng.IntN(4<<20))
		a, b := mixed(rng, p, q, 1<<uint(rng.IntN(22)))
		check(t, "a", a, p)
		check(t, "b", b, q)
		blocks += (len(p) + len(q)) / sha256.BlockSize
		if testing.Short() {
			want = manyBlocks / 100
		}
	}
	t.Logf("%d blocks hashed as crypto/sha256 does, %d at once", blocks, lanes.Width())
}

// The same answers come without the instructions, and from a computation of each kind side by side.
func TestWithoutInstructions(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	with := lanes.New()
	restore := lanes.WithoutInstructions()
	defer restore()
	if lanes.Width() != 1 {
		t.Errorf("Width = %d without the instructions, want 1", lanes.Width())
	}
	p, q := noise(1, 100_000), noise(2, 99_000)
	a, b := mixed(rng, p, q, 5000)
	check(t, "a", a, p)
	check(t, "b", b, q)
	without := lanes.New()
	lanes.WritePair(with, p, without, q)
	check(t, "with", with, p)
	check(t, "without", without, q)
}

// FuzzPair: two computations, fed as the fuzzer says, give what crypto/sha256 gives. Each run also hashes a repetition
// of its inputs, since only long ones reach the inner loops.
func FuzzPair(f *testing.F) {
	f.Add([]byte("weights"), []byte(""), uint64(1), uint16(3))
	f.Add(bytes.Repeat([]byte{0}, 64), bytes.Repeat([]byte{0xff}, 129), uint64(2), uint16(500))
	f.Fuzz(func(t *testing.T, p, q []byte, seed uint64, times uint16) {
		rng := rand.New(rand.NewPCG(seed, 0))
		p = bytes.Repeat(p, 1+int(times)%1000)
		q = bytes.Repeat(q, 1+rng.IntN(1000))
		if len(p) > 1<<22 || len(q) > 1<<22 {
			return
		}
		a, b := mixed(rng, p, q, 1<<uint(rng.IntN(20)))
		check(t, "a", a, p)
		check(t, "b", b, q)
	})
}

func BenchmarkAlone(b *testing.B) {
	p, h := noise(1, 1<<20), lanes.New()
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		h.Write(p)
	}
}

func BenchmarkPair(b *testing.B) {
	p, q := noise(1, 1<<20), noise(2, 1<<20)
	x, y := lanes.New(), lanes.New()
	b.SetBytes(int64(2 * len(p)))
	for b.Loop() {
		lanes.WritePair(x, p, y, q)
	}
}

func BenchmarkStandardLibrary(b *testing.B) {
	p, h := noise(1, 1<<20), sha256.New()
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		h.Write(p)
	}
}
