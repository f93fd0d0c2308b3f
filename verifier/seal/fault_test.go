package seal_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/fusetest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// largeSize is many blocks, and no multiple of one.
const largeSize = 37*mib + 4321

func noise(p []byte, off int64) {
	for i := range p {
		at := uint64(off) + uint64(i)
		p[i] = byte((at * 0x9e3779b97f4a7c15) >> 56)
	}
}

func large() string {
	p := make([]byte, largeSize)
	noise(p, 0)
	return string(p)
}

// resources cuts content into listed shards.
func resources(name, content string, size int) (all []oms.Resource) {
	for at := 0; at < len(content); at += size {
		end := min(at+size, len(content))
		sum := sha256.Sum256([]byte(content[at:end]))
		all = append(all, oms.Resource{Name: fmt.Sprintf("%s:%d:%d", name, at, end), Algorithm: fmt.Sprintf("sha256-sharded-%d", size), Digest: hex.EncodeToString(sum[:])})
	}
	return all
}

// A mounted source opens files that misbehave, served by a real file system.
type mounted struct{ dir *fusetest.Dir }

func (m mounted) Open(name string) (*os.File, error) { return os.Open(m.dir.Path(name)) }

// TestReadsEachByteOnce counts at the file system what is asked of it: by direct reads and where those are refused, for
// whole files and for shards, which are read at several places in turn.
func TestReadsEachByteOnce(t *testing.T) {
	content := large()
	for name, m := range map[string]*oms.Manifest{
		"files":                    manifest(t, map[string]string{"w.gguf": content}),
		"shards of 4 MiB":          shardManifest(t, resources("w.gguf", content, 4*mib), 4*mib),
		"shards that fit no block": shardManifest(t, resources("w.gguf", content, 3_000_001), 3_000_001),
	} {
		for _, direct := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, direct %v", name, direct), func(t *testing.T) {
				dir := fusetest.Mount(t)
				f := fusetest.New(largeSize, noise)
				if !direct {
					f.SetDirect(fusetest.DirectOpenFails)
					f.SetCached(true)
				}
				dir.Put("w.gguf", f)
				w, err := load(t.Context(), m, mounted{dir}, 64*mib)
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				if f.MaxReads() != 1 || f.MinReads() != 1 || f.Opens() > 2 {
					t.Errorf("bytes were read %d to %d times by %d opens, want once each", f.MinReads(), f.MaxReads(), f.Opens())
				}
				if got := content == contentOf(t, w); !got {
					t.Error("what is sealed is not what was read")
				}
			})
		}
	}
}

func contentOf(t *testing.T, w *seal.Weights) string { t.Helper(); return content(t, w, "w.gguf") }

// Each row is one way in which a file can fail under the reader. None may end in weights, or leave anything behind.
func TestFaults(t *testing.T) {
	content := large()
	m := shardManifest(t, resources("w.gguf", content, 4*mib), 4*mib)
	altered := func(p []byte, off int64) {
		noise(p, off)
		if last := int64(largeSize - 1); off <= last && last < off+int64(len(p)) {
			p[last-off] ^= 1
		}
	}
	tests := []struct {
		name   string
		script func(f *fusetest.File)
		want   string
	}{
		{"I/O error at the beginning", func(f *fusetest.File) { f.Fail(0, 1, unix.EIO) }, "input/output error"},
		{"I/O error in the middle", func(f *fusetest.File) { f.Fail(20*mib, 1, unix.EIO) }, "input/output error"},
		{"I/O error at the end", func(f *fusetest.File) { f.Fail(largeSize-1, 1, unix.EIO) }, "input/output error"},
		{"shrinks", func(f *fusetest.File) { f.After(8*mib, func() { f.Resize(10 * mib) }) }, "shrank while it was read"},
		{"grows", func(f *fusetest.File) { f.After(8*mib, func() { f.Resize(largeSize + 1) }) }, "grew while it was read"},
		{"other content", func(f *fusetest.File) { f.After(8*mib, func() { f.Replace(fusetest.Offsets) }) }, "digest is"},
		{"one bit in the last shard", func(f *fusetest.File) { f.Replace(altered) }, fmt.Sprintf("bytes %d to %d: digest is", 36*mib, largeSize)},
		{"short reads only", func(f *fusetest.File) { f.SetShort(64 << 10) }, ""},
		{"direct reads refused late", func(f *fusetest.File) { f.SetDirect(fusetest.DirectReadsFail) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := fusetest.Mount(t)
			f := fusetest.New(largeSize, noise)
			tt.script(f)
			dir.Put("w.gguf", f)
			before, pool := descriptors(t), seal.NewPool(64*mib)
			w, err := pool.Load(t.Context(), m, mounted{dir}, seal.Options{})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load = %v, want an error with %q", err, tt.want)
			}
			if err := errors.Join(w.Close(), pool.Close()); err != nil {
				t.Error(err)
			}
			checkNothingLeft(t, pool, before)
		})
	}
}

// A load that waits for a device that does not answer ends when it is cancelled, as soon as the kernel lets go.
func TestCancelWhileTheDeviceHangs(t *testing.T) {
	dir := fusetest.Mount(t)
	f := fusetest.New(largeSize, noise)
	gate, reached := make(chan struct{}), make(chan struct{}, 64)
	f.SetGate(gate)
	f.OnRead(func(int64, int) {
		select {
		case reached <- struct{}{}:
		default:
		}
	})
	dir.Put("w.gguf", f)
	before, pool := descriptors(t), seal.NewPool(64*mib)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		w, err := pool.Load(ctx, manifest(t, map[string]string{"w.gguf": large()}), mounted{dir}, seal.Options{})
		if w.Valid() {
			err = errors.New("weights were loaded")
		}
		done <- err
	}()
	<-reached
	cancel()
	close(gate)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Load = %v, want context.Canceled", err)
	}
	checkNothingLeft(t, pool, before)
}

func shardManifest(t testing.TB, all []oms.Resource, size int64) *oms.Manifest {
	t.Helper()
	return signed(t, all, oms.Serialization{Method: oms.MethodShards, HashType: digest.SHA256, ShardSize: size})
}
