package seal_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	"zz":            "opened last",
}

const approvedSize = 3*mib + 6 + 11

// manifest signs files and returns what a verifier reads.
func manifest(t testing.TB, files map[string]string) *oms.Manifest {
	t.Helper()
	var resources []oms.Resource
	for name, content := range files {
		sum := sha256.Sum256([]byte(content))
		resources = append(resources, oms.Resource{Name: name, Algorithm: "sha256", Digest: hex.EncodeToString(sum[:])})
	}
	return signed(t, resources, oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256})
}

// signed signs a listing and returns what a verifier reads.
func signed(t testing.TB, resources []oms.Resource, ser oms.Serialization) *oms.Manifest {
	t.Helper()
	payload, err := oms.NewPayload("m", resources, ser)
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

// A source serves files from a directory and counts how often each is opened.
type source struct {
	dir    string
	opened map[string]int
	onOpen func(name string) // before it is opened
}

func newSource(t testing.TB, files map[string]string) *source {
	t.Helper()
	s := &source{dir: t.TempDir(), opened: map[string]int{}}
	for name, content := range files {
		path := filepath.Join(s.dir, encode(name))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// encode makes a file name of any listed name.
func encode(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func (s *source) Open(name string) (*os.File, error) {
	s.opened[name]++
	if s.onOpen != nil {
		s.onOpen(name)
	}
	return os.Open(filepath.Join(s.dir, encode(name)))
}

func with(name, content string) map[string]string {
	files := map[string]string{}
	for n, c := range approved {
		files[n] = c
	}
	files[name] = content
	return files
}

// descriptors counts what this process has open of sealed memory and of the files of tests.
func descriptors(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(path, "/memfd:weighbridge") || strings.HasPrefix(path, os.TempDir())) {
			n++
		}
	}
	return n
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

// load loads the files of src into a pool of its own, in which nothing stays warm.
func load(ctx context.Context, m *oms.Manifest, src seal.Source, limit int64) (*seal.Weights, error) {
	pool := seal.NewPool(limit)
	w, err := pool.Load(ctx, m, src, seal.Options{})
	return w, errors.Join(err, pool.Close())
}

func TestLoad(t *testing.T) {
	before := descriptors(t)
	m, src, pool := manifest(t, approved), newSource(t, approved), seal.NewPool(approvedSize)
	var read, total atomic.Int64
	var loaded []string
	w, err := pool.Load(t.Context(), m, src, seal.Options{
		Progress: func(done, all int64) { read.Store(max(read.Load(), done)); total.Store(all) },
		Loaded: func(f seal.FileTimes) {
			loaded = append(loaded, f.Name)
			if f.Seal.End.IsZero() || f.Bytes != int64(len(approved[f.Name])) || f.Bytes > 0 && (f.Read.Busy == 0 || f.Copy.Busy == 0 || f.Hash.Busy == 0) {
				t.Errorf("times of %s are %+v", f.Name, f)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"a/config.json", "empty", "weights.gguf", "zz"}
	if !w.Valid() || w.Root() != m.Root() || w.Level() != seal.Sealed || w.Size() != approvedSize || !slices.Equal(w.Names(), names) {
		t.Errorf("Weights are %s %s, %d bytes of %q", w.Root(), w.Level(), w.Size(), w.Names())
	}
	if slices.Sort(loaded); !slices.Equal(loaded, names) || read.Load() != approvedSize || total.Load() != approvedSize {
		t.Errorf("told of %q and %d of %d bytes, want everything", loaded, read.Load(), total.Load())
	}
	for name, want := range approved {
		if got := content(t, w, name); got != want {
			t.Errorf("%s holds %d bytes, want the %d approved ones", name, len(got), len(want))
		}
		if src.opened[name] != 1 {
			t.Errorf("%s was opened %d times", name, src.opened[name])
		}
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Errorf("Close twice = %v", err)
	}
	if _, err := w.Dup("empty"); !errors.Is(err, seal.ErrClosed) || !w.Valid() {
		t.Errorf("Dup after Close = %v, want ErrClosed", err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

func TestLoadRefuses(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	weights := approved["weights.gguf"]
	resize := func(name string, size int64) func(*testing.T, *source) {
		return func(t *testing.T, s *source) {
			if err := os.Truncate(filepath.Join(s.dir, encode(name)), size); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(name string, make func(path string) error) func(*testing.T, *source) {
		return func(t *testing.T, s *source) {
			path := filepath.Join(s.dir, encode(name))
			if err := errors.Join(os.Remove(path), make(path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const limit = 4 * mib
	tests := []struct {
		name  string
		files map[string]string
		spoil func(*testing.T, *source) // before anything is opened
		late  func(*testing.T, *source) // when all are open, and nothing was read
		limit int64
		want  error  // nil: a MismatchError
		text  string // in it
	}{
		{"one bit flipped", with("weights.gguf", weights[:2*mib]+"_"+weights[2*mib+1:]), nil, nil, limit, nil, `"weights.gguf": bytes 0 to`},
		{"one byte short", with("weights.gguf", weights[1:]), nil, nil, limit, nil, `"weights.gguf": bytes 0 to`},
		{"one byte long", with("weights.gguf", weights+"!"), nil, nil, limit, nil, `"weights.gguf": bytes 0 to`},
		{"missing", map[string]string{"empty": "", "a/config.json": "{}", "zz": approved["zz"]}, nil, nil, limit, nil, `no such file`},
		{"everything", map[string]string{"empty": "x", "weights.gguf": "x", "zz": "x"}, nil, nil, limit, nil, "4 mismatches"},
		{"a directory", approved, replace("weights.gguf", func(p string) error { return os.Mkdir(p, 0o700) }), nil, limit, nil, "is not a regular file"},
		{"a device", approved, replace("weights.gguf", func(p string) error { return os.Symlink("/dev/zero", p) }), nil, limit, nil, "is not a regular file"},
		{"grows while it is read", approved, nil, resize("weights.gguf", 3*mib+5), limit, nil, "grew while it was read"},
		{"grows by blocks while it is read", approved, nil, resize("weights.gguf", 9*mib), limit, nil, "grew while it was read"},
		{"shrinks while it is read", approved, nil, resize("weights.gguf", 3*mib+3), limit, nil, "shrank while it was read"},
		{"is emptied while it is read", approved, nil, resize("weights.gguf", 0), limit, nil, "shrank while it was read"},
		{"one byte over the limit", approved, nil, nil, approvedSize - 1, seal.ErrTooLarge, ""},
		{"no memory allowed", approved, nil, nil, 0, seal.ErrTooLarge, ""},
		{"a sparse file of terabytes", approved, resize("weights.gguf", 1<<43), nil, limit, seal.ErrTooLarge, ""},
		{"cancelled", approved, nil, nil, limit, context.Canceled, ""},
	}
	m := manifest(t, approved)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := descriptors(t)
			src := newSource(t, tt.files)
			if tt.spoil != nil {
				tt.spoil(t, src)
			}
			if tt.late != nil {
				src.onOpen = func(name string) {
					if name == "zz" {
						tt.late(t, src)
					}
				}
			}
			ctx := t.Context()
			if errors.Is(tt.want, context.Canceled) {
				ctx = cancelled
			}
			pool := seal.NewPool(tt.limit)
			w, err := pool.Load(ctx, m, src, seal.Options{})
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
			checkNothingLeft(t, pool, before)
		})
	}
}

// checkNothingLeft is what must hold after each load that failed.
func checkNothingLeft(t *testing.T, pool *seal.Pool, files int) {
	t.Helper()
	if after := descriptors(t); after > files {
		t.Errorf("%d descriptors are left open", after-files)
	}
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("digest.(*check)")) {
		t.Errorf("goroutines are left:\n%s", stacks)
	}
	if u := pool.Usage(); u.InUse != 0 || u.Warm != 0 {
		t.Errorf("the pool holds %+v, want nothing", u)
	}
}

// A load that is cancelled at any moment leaves nothing behind.
func TestLoadCancelled(t *testing.T) {
	m := manifest(t, approved)
	for reads := range 8 {
		before := descriptors(t)
		ctx, cancel := context.WithCancel(t.Context())
		src, pool := newSource(t, approved), seal.NewPool(4*mib)
		var told atomic.Int64
		w, err := pool.Load(ctx, m, src, seal.Options{Progress: func(int64, int64) {
			if told.Add(1) > int64(reads) {
				cancel()
			}
		}})
		cancel()
		if told.Load() > int64(reads) && !errors.Is(err, context.Canceled) || w.Valid() != (err == nil) {
			t.Errorf("Load cancelled after %d reads = %v, want context.Canceled", reads, err)
		}
		if err := errors.Join(w.Close(), pool.Close()); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, pool, before)
	}
}

// Nothing may be taken before it is known to fit: the size alone must be enough to refuse.
func TestLoadChecksLimitBeforeReading(t *testing.T) {
	var read atomic.Int64
	_, err := seal.NewPool(mib).Load(t.Context(), manifest(t, approved), newSource(t, approved), seal.Options{
		Progress: func(done, _ int64) { read.Store(done) },
	})
	if !errors.Is(err, seal.ErrTooLarge) || read.Load() != 0 {
		t.Errorf("Load = %v after %d bytes, want ErrTooLarge before the first", err, read.Load())
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
	w, err := load(t.Context(), manifest(t, approved), newSource(t, approved), 4*mib)
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
	w, err := load(t.Context(), manifest(t, files), newSource(t, files), mib)
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
