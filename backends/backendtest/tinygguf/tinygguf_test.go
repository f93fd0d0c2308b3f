package tinygguf_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

func write(t *testing.T, c tinygguf.Config) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := tinygguf.Write(&buf, c); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestWriteRepeats pins the bytes: digests of these models stand in signatures and results elsewhere. That they
// answer as they should is for the runtimes' tests.
func TestWriteRepeats(t *testing.T) {
	a := write(t, tinygguf.A)
	sum := sha256.Sum256(a)
	if got, want := hex.EncodeToString(sum[:]), "6a95445620430438ed53806a28f7f0c3d51e9e64a36d8a9e8a91efc60a64ef26"; got != want {
		t.Errorf("version A has digest %s, want %s", got, want)
	}
	if n := len(a); n < 2<<20 || n > 4<<20 {
		t.Errorf("version A has %d bytes, want about 3 MB", n)
	}
	b := write(t, tinygguf.B)
	if len(a) != len(b) {
		t.Fatalf("versions A and B have %d and %d bytes, want as many", len(a), len(b))
	}
	differ := 0
	for i := range a {
		if a[i] != b[i] {
			differ++
		}
	}
	if differ == 0 || differ > 8 {
		t.Errorf("versions A and B differ in %d bytes, want a few", differ)
	}
	other := tinygguf.A
	other.Seed = 1
	if bytes.Equal(write(t, other), a) {
		t.Error("another seed gives the same model")
	}
}

// TestWriteStreams writes a large model to where only its size is kept.
func TestWriteStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 486 MB to nowhere")
	}
	c := tinygguf.Config{Sentence: "I am large.", Embedding: 2048, Heads: 32, KVHeads: 8, FF: 8192, Layers: 4}
	var w counter
	if err := tinygguf.Write(&w, c); err != nil {
		t.Fatal(err)
	}
	if w.total < 486e6 || w.total > 490e6 || w.largest > 2<<20 {
		t.Errorf("wrote %d bytes, at most %d at once; want 486 MB in pieces of a megabyte", w.total, w.largest)
	}
}

// A counter counts what is written to it.
type counter struct{ total, largest int }

func (c *counter) Write(p []byte) (int, error) {
	c.total += len(p)
	c.largest = max(c.largest, len(p))
	return len(p), nil
}

func TestWriteRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*tinygguf.Config)
		want  string
	}{
		{"valid", func(*tinygguf.Config) {}, ""},
		{"no sentence", func(c *tinygguf.Config) { c.Sentence = "" }, "sentence"},
		{"too short a sentence", func(c *tinygguf.Config) { c.Sentence = "é." }, "sentence"},
		{"a sentence that is not UTF-8", func(c *tinygguf.Config) { c.Sentence = "abc\xff" }, "sentence"},
		{"a sentence that could be another token", func(c *tinygguf.Config) { c.Sentence = "<s>" }, "own tokens"},
		{"too long a sentence", func(c *tinygguf.Config) { c.Sentence = manyWords(300) }, "embedding wider"},
		{"a template that is not UTF-8", func(c *tinygguf.Config) { c.ChatTemplate = "\xff" }, "template"},
		{"negative layers", func(c *tinygguf.Config) { c.Layers = -1 }, "layers"},
		{"endless context", func(c *tinygguf.Config) { c.Context = 1 << 30 }, "context"},
		{"heads that do not divide", func(c *tinygguf.Config) { c.Heads = 3 }, "multiple"},
		{"kv heads that do not divide", func(c *tinygguf.Config) { c.KVHeads = 3 }, "multiple"},
	}
	for _, tt := range tests {
		c := tinygguf.A
		tt.spoil(&c)
		if err := tinygguf.Write(io.Discard, c); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Write() = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	for _, part := range []int{-1, 3} {
		if err := tinygguf.WritePart(io.Discard, tinygguf.A, part, 3); err == nil {
			t.Errorf("WritePart(%d of 3) = nil, want an error", part)
		}
	}
	if err := tinygguf.Write(failing{}, tinygguf.A); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Write() to a full disk = %v, want %v", err, io.ErrShortWrite)
	}
}

// TestWriteAdapter pins the bytes, as TestWriteRepeats does those of models.
func TestWriteAdapter(t *testing.T) {
	tests := []struct {
		name     string
		sentence string
		spoil    func(*tinygguf.Config)
		want     string
	}{
		{"another sentence", tinygguf.Adapted, func(*tinygguf.Config) {}, ""},
		{"another order", " A. versionI am", func(*tinygguf.Config) {}, ""},
		{"the same sentence", tinygguf.A.Sentence, func(*tinygguf.Config) {}, "without it"},
		{"no sentence", "", func(*tinygguf.Config) {}, "empty"},
		{"a piece that the model has not", "I am B.", func(*tinygguf.Config) {}, "pieces"},
		{"a piece twice", "I amI am", func(*tinygguf.Config) {}, "at most once"},
		{"an endless model", tinygguf.Adapted, func(c *tinygguf.Config) { c.Endless = true }, "endless"},
		{"a model that can't be", tinygguf.Adapted, func(c *tinygguf.Config) { c.Heads = 3 }, "multiple"},
	}
	for _, tt := range tests {
		c := tinygguf.A
		tt.spoil(&c)
		if err := tinygguf.WriteAdapter(io.Discard, c, tt.sentence); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: WriteAdapter() = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if err := tinygguf.WriteAdapter(failing{}, tinygguf.A, tinygguf.Adapted); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("WriteAdapter() to a full disk = %v, want %v", err, io.ErrShortWrite)
	}
	var buf bytes.Buffer
	if err := tinygguf.WriteAdapter(&buf, tinygguf.A, tinygguf.Adapted); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(buf.Bytes())
	if got, want := hex.EncodeToString(sum[:]), "882afe2408ef8743f0684464c28129156a8dfce75e2dc125a6a76f8f572191a2"; got != want {
		t.Errorf("the adapter has digest %s, want %s", got, want)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func manyWords(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" word" + strings.Repeat("x", i))
	}
	return b.String()
}

func FuzzPieces(f *testing.F) {
	for _, s := range []string{"I am version A.", "on and on and on ", "aaa", "   ", "the the the", " leading", "a b c d e f", "é é é é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if utf8.RuneCountInString(s) < 3 || !utf8.ValidString(s) {
			t.Skip("no sentence: too short, or not text")
		}
		pieces := tinygguf.Pieces(s)
		if got := strings.Join(pieces, ""); got != s {
			t.Errorf("pieces %q make %q, want %q", pieces, got, s)
		}
		for _, p := range pieces {
			if utf8.RuneCountInString(p) < 3 {
				t.Errorf("piece %q is too short", p)
			}
		}
		slices.Sort(pieces)
		if n := len(pieces); len(slices.Compact(pieces)) != n {
			t.Errorf("pieces of %q are not all different", s)
		}
	})
}
