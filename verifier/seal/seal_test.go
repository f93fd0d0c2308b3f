package seal_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

const mib = 1 << 20

// approved are the files of the model in these tests.
var approved = map[string]string{
	"a/config.json": "{}",
	"empty":         "",
	"weights.gguf":  strings.Repeat("0123456789abcdef", 3*mib/16) + "tail",
}

// manifest signs files and returns what a verifier reads.
func manifest(t testing.TB, files map[string]string) *oms.Manifest {
	t.Helper()
	var resources []oms.Resource
	for name, content := range files {
		sum := sha256.Sum256([]byte(content))
		resources = append(resources, oms.Resource{Name: name, Algorithm: "sha256", Digest: hex.EncodeToString(sum[:])})
	}
	payload, err := oms.NewPayload("m", resources, oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := statement.NewKeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	s, err := statement.Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	m, err := oms.ParseManifest(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A source serves files from memory and counts what is read of them.
type source struct {
	files  map[string]string
	size   map[string]int64 // if it claims another one
	opened map[string]int
	read   map[string]int64
	closed int
	onRead func(name string)
}

func newSource(files map[string]string) *source {
	return &source{files: files, size: map[string]int64{}, opened: map[string]int{}, read: map[string]int64{}}
}

func (s *source) Open(name string) (io.ReadCloser, int64, error) {
	s.opened[name]++
	content, ok := s.files[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	size := int64(len(content))
	if claimed, ok := s.size[name]; ok {
		size = claimed
	}
	return &counted{s, name, strings.NewReader(content)}, size, nil
}

type counted struct {
	s    *source
	name string
	r    io.Reader
}

func (c *counted) Read(p []byte) (int, error) {
	if c.s.onRead != nil {
		c.s.onRead(c.name)
	}
	n, err := c.r.Read(p)
	c.s.read[c.name] += int64(n)
	return n, err
}

func (c *counted) Close() error { c.s.closed++; return nil }

func with(name, content string) map[string]string {
	files := map[string]string{}
	for n, c := range approved {
		files[n] = c
	}
	files[name] = content
	return files
}

// descriptors counts what this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func content(t testing.TB, w *seal.Weights, name string) string {
	t.Helper()
	f, err := w.Dup(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLoad(t *testing.T) {
	before := descriptors(t)
	m, src := manifest(t, approved), newSource(approved)
	w, err := seal.Load(t.Context(), m, src, 4*mib)
	if err != nil {
		t.Fatal(err)
	}
	if !w.Valid() || w.Root() != m.Root() || w.Level() != seal.Sealed || w.Size() != 3*mib+6 || !slices.Equal(w.Names(), []string{"a/config.json", "empty", "weights.gguf"}) {
		t.Errorf("Weights are %s %s, %d bytes of %q", w.Root(), w.Level(), w.Size(), w.Names())
	}
	for name, want := range approved {
		if got := content(t, w, name); got != want {
			t.Errorf("%s holds %d bytes, want the %d approved ones", name, len(got), len(want))
		}
		// The read-once property: opened once, and each byte taken once.
		if src.opened[name] != 1 || src.read[name] != int64(len(want)) {
			t.Errorf("%s was opened %d times and %d bytes of %d were read", name, src.opened[name], src.read[name], len(want))
		}
	}
	if src.closed != len(approved) {
		t.Errorf("%d of %d files were closed", src.closed, len(approved))
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Errorf("Close twice = %v", err)
	}
	if _, err := w.Dup("empty"); !errors.Is(err, seal.ErrClosed) || !w.Valid() {
		t.Errorf("Dup after Close = %v, want ErrClosed", err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

func TestLoadRefuses(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	weights := approved["weights.gguf"]
	tests := []struct {
		name  string
		stop  bool // cancelled before it starts
		files map[string]string
		size  map[string]int64
		limit int64
		want  error  // nil: a MismatchError
		text  string // in it
	}{
		{"one bit flipped", false, with("weights.gguf", weights[:2*mib]+"_"+weights[2*mib+1:]), nil, 4 * mib, nil, `"weights.gguf": bytes 0 to`},
		{"one byte short", false, with("weights.gguf", weights[1:]), nil, 4 * mib, nil, `"weights.gguf": bytes 0 to`},
		{"one byte long", false, with("weights.gguf", weights+"!"), nil, 4 * mib, nil, `"weights.gguf": bytes 0 to`},
		{"missing", false, map[string]string{"empty": "", "a/config.json": "{}"}, nil, 4 * mib, nil, `"weights.gguf": file does not exist`},
		{"grows while it is read", false, approved, map[string]int64{"weights.gguf": 3 * mib}, 4 * mib, nil, "grew while it was read"},
		{"shrinks while it is read", false, approved, map[string]int64{"weights.gguf": 3*mib + 5}, 4 * mib, nil, "shrank while it was read"},
		{"everything", false, map[string]string{"empty": "x", "weights.gguf": "x"}, nil, 4 * mib, nil, "3 mismatches"},
		{"one byte over the limit", false, approved, nil, 3*mib + 5, seal.ErrTooLarge, ""},
		{"no memory allowed", false, approved, nil, 0, seal.ErrTooLarge, ""},
		{"a size that overflows", false, approved, map[string]int64{"weights.gguf": 1<<63 - 1}, 4 * mib, seal.ErrTooLarge, ""},
		{"cancelled", true, approved, nil, 4 * mib, context.Canceled, ""},
	}
	m := manifest(t, approved)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := descriptors(t)
			src := newSource(tt.files)
			src.size = tt.size
			ctx := t.Context()
			if tt.stop {
				ctx = cancelled
			}
			w, err := seal.Load(ctx, m, src, tt.limit)
			if w.Valid() || err == nil {
				t.Fatalf("Load = %v, %v, want a refusal", w, err)
			}
			wrong := new(seal.MismatchError)
			switch {
			case tt.want == nil && (!errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.text)):
				t.Errorf("Load = %v, want a MismatchError with %q", err, tt.text)
			case tt.want != nil && !errors.Is(err, tt.want):
				t.Errorf("Load = %v, want %v", err, tt.want)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors are left open", after-before)
			}
		})
	}
}

// A load that is cancelled half-way through leaves nothing behind.
func TestLoadCancelled(t *testing.T) {
	before := descriptors(t)
	ctx, cancel := context.WithCancel(t.Context())
	src := newSource(approved)
	src.onRead = func(name string) {
		if src.read[name] > mib {
			cancel()
		}
	}
	if w, err := seal.Load(ctx, manifest(t, approved), src, 4*mib); !errors.Is(err, context.Canceled) || w.Valid() {
		t.Errorf("Load = %v, want context.Canceled", err)
	}
	if after := descriptors(t); after != before || src.closed != 3 {
		t.Errorf("%d descriptors are left open, %d of 3 files closed", after-before, src.closed)
	}
}

// Nothing may be taken before it is known to fit: the claimed size alone must be enough to refuse.
func TestLoadChecksLimitBeforeReading(t *testing.T) {
	src := newSource(approved)
	if _, err := seal.Load(t.Context(), manifest(t, approved), src, mib); !errors.Is(err, seal.ErrTooLarge) || src.read["weights.gguf"] != 0 {
		t.Errorf("Load = %v after %d bytes, want ErrTooLarge before the first", err, src.read["weights.gguf"])
	}
}

func TestZeroWeights(t *testing.T) {
	for _, w := range []*seal.Weights{nil, {}} {
		if w.Valid() {
			t.Error("the zero value names weights")
		}
		if f, err := w.Dup("weights.gguf"); err == nil {
			t.Errorf("the zero value has a file %v", f)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWeightsConcurrently(t *testing.T) {
	w, err := seal.Load(t.Context(), manifest(t, approved), newSource(approved), 4*mib)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Dup("nowhere"); err == nil {
		t.Error("an unlisted file is handed out")
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if i == 8 {
				w.Close()
				return
			}
			f, err := w.Dup("a/config.json")
			if err != nil && !errors.Is(err, seal.ErrClosed) {
				t.Error(err)
			}
			if err == nil {
				f.Close()
			}
		})
	}
	wg.Wait()
}

// A name may hold anything that a manifest accepts, and be longer than the kernel takes.
func TestAnyName(t *testing.T) {
	files := map[string]string{strings.Repeat("xxx/", 100) + "y\n": "a", "模型": "b", strings.Repeat("模", 85): "c"}
	w, err := seal.Load(t.Context(), manifest(t, files), newSource(files), mib)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for name, want := range files {
		if got := content(t, w, name); got != want {
			t.Errorf("%q holds %q, want %q", name, got, want)
		}
	}
}
