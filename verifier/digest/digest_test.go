package digest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/weighbridge/weighbridge/verifier/digest"
)

func sum(alg digest.Algorithm, s string) []byte {
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

func TestCopy(t *testing.T) {
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
		{"shards that end with a buffer", 6, approved, ""},
	}
	// The verdict must not depend on how the source happens to chunk its bytes.
	chunkings := map[string]func(io.Reader) io.Reader{
		"whole":         func(r io.Reader) io.Reader { return r },
		"byte by byte":  iotest.OneByteReader,
		"EOF with data": iotest.DataErrReader,
	}
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.BLAKE2b, digest.BLAKE3} {
		for _, tt := range tests {
			for chunking, wrap := range chunkings {
				t.Run(fmt.Sprintf("%s/%s/%s", alg, tt.name, chunking), func(t *testing.T) {
					parts := whole(alg, approved)
					if tt.shard > 0 {
						parts = shards(alg, approved, tt.shard)
					}
					var dst bytes.Buffer
					n, bad, err := digest.Copy(t.Context(), &dst, wrap(strings.NewReader(tt.data)), alg, parts, 100)
					if err != nil || render(bad) != tt.want {
						t.Errorf("Copy(%q) = %q, %v, want %q", tt.data, render(bad), err, tt.want)
					}
					if n != int64(len(tt.data)) || dst.String() != tt.data {
						t.Errorf("Copy(%q) copied %d bytes: %q", tt.data, n, dst.String())
					}
				})
			}
		}
	}
}

// Parts and buffers are cut at different places: neither may show in the verdict.
func TestCopyManyBuffers(t *testing.T) {
	content := strings.Repeat("0123456789abcde", 400_000) // 6 MB
	for _, size := range []int{1 << 20, 1<<20 + 1, 777_777, 64 << 20} {
		parts := shards(digest.SHA256, content, size)
		n, bad, err := digest.Copy(t.Context(), io.Discard, strings.NewReader(content), digest.SHA256, parts, int64(len(content)))
		if n != int64(len(content)) || bad != nil || err != nil {
			t.Errorf("Copy in shards of %d = %d, %q, %v", size, n, render(bad), err)
		}
		altered := content[:5_000_000] + "X" + content[5_000_001:]
		_, bad, err = digest.Copy(t.Context(), io.Discard, strings.NewReader(altered), digest.SHA256, parts, int64(len(content)))
		if len(bad) != 1 || err != nil || bad[0].Part.Start > 5_000_000 || bad[0].End <= 5_000_000 {
			t.Errorf("Copy of altered content in shards of %d = %q, %v, want the shard of byte 5000000", size, render(bad), err)
		}
	}
}

func TestCopyMismatchNamesDigests(t *testing.T) {
	_, bad, err := digest.Copy(t.Context(), io.Discard, strings.NewReader("b"), digest.SHA256, whole(digest.SHA256, "a"), 1)
	if err != nil || len(bad) != 1 || !bytes.Equal(bad[0].Actual, sum(digest.SHA256, "b")) || !bytes.Equal(bad[0].Part.Sum, sum(digest.SHA256, "a")) {
		t.Errorf("Copy = %+v, %v, want the digests of what was approved and of what was there", bad, err)
	}
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) { e.read += len(p); return len(p), nil }

func TestCopyStopsEndlessSource(t *testing.T) {
	src := &endless{}
	_, _, err := digest.Copy(t.Context(), io.Discard, src, digest.SHA256, whole(digest.SHA256, ""), 3<<20)
	if !errors.Is(err, digest.ErrTooLong) || src.read > 4<<20 {
		t.Errorf("Copy of an endless source = %v after %d bytes, want ErrTooLong soon after 3 MiB", err, src.read)
	}
}

func TestCopyErrors(t *testing.T) {
	broken := errors.New("broken")
	full := writerFunc(func(p []byte) (int, error) { return 0, broken })
	short := writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil })
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	x := strings.NewReader
	tests := []struct {
		name  string
		stop  bool // cancelled before it starts
		dst   io.Writer
		src   io.Reader
		alg   digest.Algorithm
		limit int64
		parts []digest.Part
		want  error // nil: any
	}{
		{"source breaks off", false, io.Discard, io.MultiReader(x("x"), iotest.ErrReader(io.ErrUnexpectedEOF)), digest.SHA256, 1, whole(digest.SHA256, "x"), io.ErrUnexpectedEOF},
		{"source fails", false, io.Discard, io.MultiReader(x("x"), iotest.ErrReader(broken)), digest.SHA256, 1, whole(digest.SHA256, "x"), broken},
		{"target is full", false, full, x("x"), digest.SHA256, 1, whole(digest.SHA256, "x"), broken},
		{"target takes less", false, short, x("x"), digest.SHA256, 1, whole(digest.SHA256, "x"), io.ErrShortWrite},
		{"cancelled", true, io.Discard, x("x"), digest.SHA256, 1, whole(digest.SHA256, "x"), context.Canceled},
		{"one byte over the limit", false, io.Discard, x("x"), digest.SHA256, 0, whole(digest.SHA256, "x"), digest.ErrTooLong},
		{"negative limit", false, io.Discard, x("x"), digest.SHA256, -1, whole(digest.SHA256, "x"), nil},
		{"no algorithm", false, io.Discard, x("x"), "", 1, whole(digest.SHA256, "x"), nil},
		{"unknown algorithm", false, io.Discard, x("x"), "md5", 1, whole(digest.SHA256, "x"), nil},
		{"parts with a gap", false, io.Discard, x("xxx"), digest.SHA256, 3, []digest.Part{{Start: 0, End: 1}, {Start: 2, End: 3}}, nil},
		{"parts that overlap", false, io.Discard, x("xxx"), digest.SHA256, 3, []digest.Part{{Start: 0, End: 2}, {Start: 1, End: 3}}, nil},
		{"parts that start late", false, io.Discard, x("xxx"), digest.SHA256, 3, []digest.Part{{Start: 1, End: 3}}, nil},
		{"empty part", false, io.Discard, x("xxx"), digest.SHA256, 3, []digest.Part{{Start: 0, End: 0}, {Start: 0, End: 3}}, nil},
		{"part behind the end", false, io.Discard, x("xxx"), digest.SHA256, 3, []digest.Part{{Start: 0, End: digest.ToEnd}, {Start: -1, End: 3}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			if tt.stop {
				ctx = cancelled
			}
			_, bad, err := digest.Copy(ctx, tt.dst, tt.src, tt.alg, tt.parts, tt.limit)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || bad != nil {
				t.Errorf("Copy = %q, %v, want %v", render(bad), err, tt.want)
			}
		})
	}
}

// A source that is cancelled half-way through must never pass for one that ended there.
func TestCopyCancelledIsNotTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first := strings.Repeat("a", 8<<20)
	src := io.MultiReader(strings.NewReader(first), readerFunc(func(p []byte) (int, error) {
		cancel()
		p[0] = 'b'
		return 1, nil
	}))
	parts := shards(digest.SHA256, first, 4<<20)
	if _, bad, err := digest.Copy(ctx, io.Discard, src, digest.SHA256, parts, 1<<30); !errors.Is(err, context.Canceled) {
		t.Errorf("Copy = %q, %v, want context.Canceled", render(bad), err)
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
		if got := hex.EncodeToString(sum(alg, "abc")); got != want || alg.Size()*2 != len(want) {
			t.Errorf("%s of abc = %s (size %d), want %s", name, got, alg.Size(), want)
		}
	}
	for _, name := range []string{"", "SHA256", "sha-256", "sha512", "blake2", "blake2s", "md5", "sha256 "} {
		if alg, err := digest.ParseAlgorithm(name); err == nil {
			t.Errorf("ParseAlgorithm(%q) = %q, want an error", name, alg)
		}
	}
}

// FuzzCopy: the verdict is that of hashing each range of the whole content, however it is cut.
func FuzzCopy(f *testing.F) {
	f.Add([]byte("weights"), []byte("weights"), uint8(3))
	f.Add([]byte("weights"), []byte("weightS!"), uint8(0))
	f.Fuzz(func(t *testing.T, approved, data []byte, size uint8) {
		parts := whole(digest.SHA256, string(approved))
		if size > 0 && len(approved) > 0 {
			parts = shards(digest.SHA256, string(approved), int(size))
		}
		var dst bytes.Buffer
		_, bad, err := digest.Copy(t.Context(), &dst, bytes.NewReader(data), digest.SHA256, parts, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if same := bytes.Equal(approved, data); same != (len(bad) == 0) {
			t.Errorf("Copy(%q) against %q = %q", data, approved, render(bad))
		}
		if !bytes.Equal(dst.Bytes(), data) {
			t.Errorf("Copy(%q) wrote %q", data, dst.Bytes())
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
