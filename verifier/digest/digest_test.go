package digest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/weighbridge/weighbridge/verifier/digest"
)

func sum(alg digest.Algorithm, s string) []byte {
	if alg == digest.SHA256 {
		sum := sha256.Sum256([]byte(s)) // not by what is tested
		return sum[:]
	}
	h := alg.New()
	io.WriteString(h, s)
	return h.Sum(nil)
}

// shards cuts content into approved parts of the given size.
func shards(alg digest.Algorithm, content string, size int) []digest.Part {
	var parts []digest.Part
	for at := 0; at < len(content); at += size {
		end := min(at+size, len(content))
		parts = append(parts, digest.Part{Name: fmt.Sprintf("f:%d:%d", at, end), Start: int64(at), End: int64(end), Sum: sum(alg, content[at:end])})
	}
	return parts
}

func whole(alg digest.Algorithm, content string) []digest.Part {
	return []digest.Part{{Name: "f", End: digest.ToEnd, Sum: sum(alg, content)}}
}

// render writes mismatches down as "name start-end", with a "-" for a part that is not there at all.
func render(bad []digest.Mismatch) string {
	var all []string
	for _, b := range bad {
		s := fmt.Sprintf("%s %d-%d", b.Part.Name, b.Part.Start, b.End)
		if b.Actual == nil {
			s += " -"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

// A target is memory that counts how often each byte was written.
type target struct {
	mu    sync.Mutex
	data  []byte
	times []uint8
}

func newTarget(n int) *target { return &target{data: make([]byte, n), times: make([]uint8, n)} }

func (m *target) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	for i := range p {
		m.times[int(off)+i]++
	}
	return len(p), nil
}

// check wants each byte of content written once.
func (m *target) check(t *testing.T, content string) {
	t.Helper()
	if string(m.data) != content || bytes.ContainsFunc(m.times, func(n rune) bool { return n != 1 }) {
		t.Errorf("the target does not hold the %d bytes of the file, each written once", len(content))
	}
}

// checkFile checks one file and returns its result.
func checkFile(t *testing.T, alg digest.Algorithm, in digest.Input) digest.Result {
	t.Helper()
	var result digest.Result
	calls := 0
	err := digest.Check(t.Context(), alg, []digest.File{{
		Open: func() (digest.Input, error) { return in, nil },
		Done: func(r digest.Result) error { result = r; calls++; return nil },
	}}, digest.Options{})
	if err != nil || calls != 1 {
		t.Fatalf("Check = %v after %d calls of Done, want nil after one", err, calls)
	}
	return result
}

func TestCheck(t *testing.T) {
	const approved = "weights of a model" // 18 bytes
	tests := []struct {
		name  string
		shard int // 0: the whole file is one part
		data  string
		want  string
	}{
		{"approved", 0, approved, ""},
		{"empty", 0, "", "f 0-0"},
		{"one bit flipped", 0, "weights og a model", "f 0-18"},
		{"one byte short", 0, approved[:17], "f 0-17"},
		{"one byte long", 0, approved + "!", "f 0-19"},
		{"approved shards", 8, approved, ""},
		{"first shard flipped", 8, "Weights of a model", "f:0:8 0-8"},
		{"first and last shard flipped", 8, "Weights of a modeL", "f:0:8 0-8, f:16:18 16-18"},
		{"shards swapped", 9, "f a modelweights o", "f:0:9 0-9, f:9:18 9-18"},
		{"last shard cut short", 8, approved[:17], "f:16:18 16-17"},
		{"last shard missing", 8, approved[:16], "f:16:18 16-16 -"},
		{"two shards missing", 8, approved[:8], "f:8:16 8-8 -, f:16:18 16-8 -"},
		{"nothing there", 9, "", "f:0:9 0-0 -, f:9:18 9-0 -"},
		{"bytes behind the last shard", 8, approved + "!!", " 18-20"},
	}
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.BLAKE2b, digest.BLAKE3} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%s", alg, tt.name), func(t *testing.T) {
				parts := whole(alg, approved)
				if tt.shard > 0 {
					parts = shards(alg, approved, tt.shard)
				}
				dst := newTarget(len(tt.data))
				r := checkFile(t, alg, digest.Input{Source: strings.NewReader(tt.data), Size: int64(len(tt.data)), Parts: parts, Target: dst})
				if r.Err != nil || render(r.Mismatches) != tt.want || r.OK() != (tt.want == "") {
					t.Errorf("Check(%q) = %q, %v, want %q", tt.data, render(r.Mismatches), r.Err, tt.want)
				}
				if r.Bytes != int64(len(tt.data)) {
					t.Errorf("Check(%q) read %d bytes", tt.data, r.Bytes)
				}
				dst.check(t, tt.data)
			})
		}
	}
}

func TestEmptyFile(t *testing.T) {
	for _, parts := range [][]digest.Part{nil, whole(digest.SHA256, "")} {
		if r := checkFile(t, digest.SHA256, digest.Input{Source: strings.NewReader(""), Parts: parts}); !r.OK() {
			t.Errorf("Check of an empty file = %+v, want it approved", r)
		}
	}
}

// A part whose digest is right is wrong all the same if it should have been longer.
func TestCutShortIsNeverApproved(t *testing.T) {
	parts := []digest.Part{{Name: "f:0:8", End: 8, Sum: sum(digest.SHA256, "weight")}}
	r := checkFile(t, digest.SHA256, digest.Input{Source: strings.NewReader("weight"), Size: 6, Parts: parts})
	if r.OK() {
		t.Error("a shard that ends early is approved")
	}
}

// random is reproducible content of n bytes.
func random(n int) string {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return string(p)
}

// Parts, blocks and streams are cut at different places: none of it may show in the verdict, or make a byte be read or
// written twice.
func TestManyBlocks(t *testing.T) {
	const mib = 1 << 20
	content := random(50*mib + 12345)
	for _, size := range []int{64 << 10, mib, mib + 1, 777_777, 2 * mib, 4 * mib, 5_000_000, 16 * mib, 33 * mib, 64 * mib} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			parts := shards(digest.SHA256, content, size)
			src, dst := &counted{content: content}, newTarget(len(content))
			r := checkFile(t, digest.SHA256, digest.Input{Source: src, Size: int64(len(content)), Parts: parts, Target: dst})
			if !r.OK() || r.Bytes != int64(len(content)) {
				t.Errorf("Check = %q, %v after %d bytes", render(r.Mismatches), r.Err, r.Bytes)
			}
			dst.check(t, content)
			src.check(t)

			altered := []byte(content)
			altered[0] ^= 1
			altered[30_000_000] ^= 1
			altered[len(content)-1] ^= 1
			var want []string
			for _, p := range parts {
				if p.Start == 0 || p.Start <= 30_000_000 && 30_000_000 < p.End || p.End == int64(len(content)) {
					want = append(want, fmt.Sprintf("%s %d-%d", p.Name, p.Start, p.End))
				}
			}
			r = checkFile(t, digest.SHA256, digest.Input{Source: bytes.NewReader(altered), Size: int64(len(content)), Parts: parts})
			if got := render(r.Mismatches); got != strings.Join(want, ", ") || r.Err != nil {
				t.Errorf("Check of altered content = %q, %v, want %q", got, r.Err, want)
			}
		})
	}
}

// A counted source counts how often each byte is read.
type counted struct {
	content string
	mu      sync.Mutex
	read    int
	seen    map[int64]bool
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := strings.NewReader(c.content).ReadAt(p, off)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[int64]bool{}
	}
	if c.seen[off] {
		err = errors.New("read twice")
	}
	c.seen[off] = true
	c.read += n
	return n, err
}

func (c *counted) check(t *testing.T) {
	t.Helper()
	if c.read != len(c.content) {
		t.Errorf("%d bytes were read of %d", c.read, len(c.content))
	}
}

// TestManyFiles checks that files of all sizes are opened in order and judged each on its own.
func TestManyFiles(t *testing.T) {
	const n = 300
	rng := rand.New(rand.NewPCG(1, 2))
	content := random(9 << 20)
	var files []digest.File
	var opened, done []int
	results := make([]digest.Result, n)
	want := make([]string, n)
	for i := range n {
		size := rng.IntN(1 << uint(rng.IntN(23)))
		mine := content[:size]
		parts := whole(digest.SHA256, mine)
		if i%3 == 0 {
			parts = shards(digest.SHA256, mine, 1+size/2)
		}
		in := digest.Input{Source: strings.NewReader(mine), Size: int64(size), Parts: parts}
		switch {
		case i%7 == 0:
			in.Source, want[i] = brokenSource{}, "broken"
		case i%11 == 0:
			in.Size, want[i] = in.Size+1, digest.ErrShrank.Error()
		case i%13 == 0 && size > 0:
			in.Size, want[i] = in.Size-1, digest.ErrGrew.Error()
		case i%17 == 0:
			in.Parts, want[i] = whole(digest.SHA256, mine+"!"), fmt.Sprintf("f 0-%d", size)
		}
		files = append(files, digest.File{
			Open: func() (digest.Input, error) { opened = append(opened, i); return in, nil },
			Done: func(r digest.Result) error { done = append(done, i); results[i] = r; return nil },
		})
	}
	if err := digest.Check(t.Context(), digest.SHA256, files, digest.Options{}); err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if got := render(r.Mismatches); r.Err != nil && r.Err.Error() != want[i] || r.Err == nil && got != want[i] {
			t.Errorf("file %d: %q, %v, want %q", i, got, r.Err, want[i])
		}
	}
	if len(opened) != n || len(done) != n {
		t.Errorf("%d files were opened and %d done, want %d", len(opened), len(done), n)
	}
	for i := range opened {
		if opened[i] != i {
			t.Fatalf("files were opened in the order %v", opened)
		}
	}
}

type brokenSource struct{}

func (brokenSource) ReadAt([]byte, int64) (int, error) { return 0, errors.New("broken") }

func TestMismatchNamesDigests(t *testing.T) {
	r := checkFile(t, digest.SHA256, digest.Input{Source: strings.NewReader("b"), Size: 1, Parts: whole(digest.SHA256, "a")})
	if len(r.Mismatches) != 1 || !bytes.Equal(r.Mismatches[0].Actual, sum(digest.SHA256, "b")) || !bytes.Equal(r.Mismatches[0].Part.Sum, sum(digest.SHA256, "a")) {
		t.Errorf("Check = %+v, want the digests of what was approved and of what was there", r)
	}
}

func TestPhases(t *testing.T) {
	content := random(5 << 20)
	r := checkFile(t, digest.SHA256, digest.Input{Source: strings.NewReader(content), Size: 5 << 20, Parts: whole(digest.SHA256, content), Target: newTarget(5 << 20)})
	for name, p := range map[string]digest.Phase{"read": r.Read, "copy": r.Copy, "hash": r.Hash} {
		if p.Start.IsZero() || !p.End.After(p.Start) || p.Busy <= 0 {
			t.Errorf("%s took %+v, want a time for each phase", name, p)
		}
	}
}

func TestParseAlgorithm(t *testing.T) {
	known := map[string]string{ // digests of "abc"
		"sha256":  "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"blake3":  "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
		"blake2b": "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
	}
	for name, want := range known {
		alg, err := digest.ParseAlgorithm(name)
		if err != nil {
			t.Fatal(err)
		}
		h := alg.New()
		io.WriteString(h, "abc")
		if got := hex.EncodeToString(h.Sum(nil)); got != want || alg.Size()*2 != len(want) {
			t.Errorf("%s of abc = %s (size %d), want %s", name, got, alg.Size(), want)
		}
	}
	for _, name := range []string{"", "SHA256", "sha-256", "sha512", "blake2", "blake2s", "md5", "sha256 "} {
		if alg, err := digest.ParseAlgorithm(name); err == nil {
			t.Errorf("ParseAlgorithm(%q) = %q, want an error", name, alg)
		}
	}
}

// FuzzCheck: the verdict is that of hashing each range of the whole content, however it is cut.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("weights"), []byte("weights"), uint32(3), uint16(1))
	f.Add([]byte("weights"), []byte("weightS!"), uint32(0), uint16(1))
	f.Add([]byte("weights"), []byte("weights"), uint32(1<<20), uint16(60000))
	f.Fuzz(func(t *testing.T, approved, data []byte, size uint32, times uint16) {
		approved, data = bytes.Repeat(approved, int(times)), bytes.Repeat(data, int(times))
		if len(approved) > 1<<23 || len(data) > 1<<23 {
			return
		}
		parts := whole(digest.SHA256, string(approved))
		if size > 0 && len(approved) > 0 {
			parts = shards(digest.SHA256, string(approved), max(int(size), len(approved)/1000))
		}
		dst := newTarget(len(data))
		r := checkFile(t, digest.SHA256, digest.Input{Source: bytes.NewReader(data), Size: int64(len(data)), Parts: parts, Target: dst})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if same := bytes.Equal(approved, data); same != r.OK() {
			t.Errorf("Check of %d bytes against %d approved ones = %q", len(data), len(approved), render(r.Mismatches))
		}
		dst.check(t, string(data))
	})
}

// Each row breaks the check of one file of many: the error says why, every opened file is told, and nothing goes on.
func TestGivenUp(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name  string
		spoil func(f *digest.File, cancel func())
		alg   digest.Algorithm
		want  error // nil: any
	}{
		{"target is full", func(f *digest.File, _ func()) { f.Open = opens(writer(func([]byte) (int, error) { return 0, broken })) }, digest.SHA256, broken},
		{"target takes less", func(f *digest.File, _ func()) {
			f.Open = opens(writer(func(p []byte) (int, error) { return len(p) - 1, nil }))
		}, digest.SHA256, io.ErrShortWrite},
		{"cancelled", func(f *digest.File, cancel func()) {
			f.Open = opens(writer(func(p []byte) (int, error) { cancel(); return len(p), nil }))
		}, digest.SHA256, context.Canceled},
		{"done fails", func(f *digest.File, _ func()) { f.Done = func(digest.Result) error { return broken } }, digest.SHA256, broken},
		{"no algorithm", func(*digest.File, func()) {}, "", nil},
		{"unknown algorithm", func(*digest.File, func()) {}, "md5", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var opened, done int
			var files []digest.File
			for i := range 40 {
				f := digest.File{Open: opens(nil), Done: func(r digest.Result) error { return nil }}
				if i == 20 {
					tt.spoil(&f, cancel)
				}
				open, end := f.Open, f.Done
				f.Open = func() (digest.Input, error) { opened++; return open() }
				f.Done = func(r digest.Result) error { done++; return end(r) }
				files = append(files, f)
			}
			err := digest.Check(ctx, tt.alg, files, digest.Options{})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Check = %v, want %v", err, tt.want)
			}
			if opened != done || opened == len(files) {
				t.Errorf("%d files were opened and %d done, want the same, and not all %d", opened, done, len(files))
			}
		})
	}
}

const piece = 5 << 20

func opens(w io.WriterAt) func() (digest.Input, error) {
	return func() (digest.Input, error) {
		content := strings.Repeat("0123456789", piece/10)
		return digest.Input{Source: strings.NewReader(content), Size: piece, Parts: whole(digest.SHA256, content), Target: w}, nil
	}
}

type writer func([]byte) (int, error)

func (f writer) WriteAt(p []byte, _ int64) (int, error) { return f(p) }

// What can't be opened, or is cut in a way that covers no file, is said in its own result.
func TestBadInputs(t *testing.T) {
	in := func(parts ...digest.Part) digest.Input {
		return digest.Input{Source: strings.NewReader("xxx"), Size: 3, Parts: parts}
	}
	broken := iotest.ErrTimeout
	tests := []struct {
		name string
		in   digest.Input
		err  error
	}{
		{"can't be opened", digest.Input{}, broken},
		{"parts with a gap", in(digest.Part{Start: 0, End: 1}, digest.Part{Start: 2, End: 3}), nil},
		{"parts that overlap", in(digest.Part{Start: 0, End: 2}, digest.Part{Start: 1, End: 3}), nil},
		{"parts that start late", in(digest.Part{Start: 1, End: 3}), nil},
		{"empty part", in(digest.Part{Start: 0, End: 0}, digest.Part{Start: 0, End: 3}), nil},
		{"part behind the end", in(digest.Part{Start: 0, End: digest.ToEnd}, digest.Part{Start: -1, End: 3}), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r digest.Result
			err := digest.Check(t.Context(), digest.SHA256, []digest.File{{
				Open: func() (digest.Input, error) { return tt.in, tt.err },
				Done: func(got digest.Result) error { r = got; return nil },
			}}, digest.Options{})
			if err != nil || r.Err == nil || r.OK() || tt.err != nil && !errors.Is(r.Err, tt.err) {
				t.Errorf("Check = %v with result %+v, want the file's own error", err, r)
			}
		})
	}
}
