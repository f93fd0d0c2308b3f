package seal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// A model is one signed file of a MiB, and how often it was read.
type model struct {
	m   *oms.Manifest
	src *source
}

func newModel(t *testing.T, letter string) model {
	t.Helper()
	files := map[string]string{letter + ".gguf": strings.Repeat(letter, mib)}
	return model{manifest(t, files), newSource(t, files)}
}

func (m model) load(t *testing.T, p *seal.Pool) *seal.Weights {
	t.Helper()
	w, err := p.Load(t.Context(), m.m, m.src, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (m model) checkReads(t *testing.T, want int) {
	t.Helper()
	for name, n := range m.src.opened {
		if n != want {
			t.Errorf("%s was read %d times, want %d", name, n, want)
		}
	}
}

func checkUsage(t *testing.T, p *seal.Pool, used, warm int64) {
	t.Helper()
	if u := p.Usage(); u.InUse != used*mib || u.Warm != warm*mib {
		t.Errorf("the pool holds %+v, want %d MiB in use and %d warm", u, used, warm)
	}
}

// What was discarded is given back with its last holder, unless somebody has asked for it since.
func TestDiscard(t *testing.T) {
	a, p := newModel(t, "a"), seal.NewPool(2*mib)
	first, second := a.load(t, p), a.load(t, p)
	if err := errors.Join(first.Discard(), first.Discard()); err != nil {
		t.Fatal(err)
	}
	checkUsage(t, p, 1, 0)
	second.Close()
	checkUsage(t, p, 0, 0)

	first = a.load(t, p)
	second, err := first.Share()
	if err != nil {
		t.Fatal(err)
	}
	first.Discard()
	third := a.load(t, p)
	second.Close()
	third.Close()
	checkUsage(t, p, 0, 1)
	a.checkReads(t, 2)
	if _, err := third.Dup("a.gguf"); !errors.Is(err, seal.ErrClosed) {
		t.Errorf("Dup of closed weights = %v, want %v", err, seal.ErrClosed)
	}
}

// What is sealed is shared by all who need it, and stays for the next one: it is read once.
func TestPoolShares(t *testing.T) {
	a, p := newModel(t, "a"), seal.NewPool(2*mib)
	if w := p.Get(a.m); w != nil {
		t.Error("Get returns weights that were never loaded")
	}
	first, second := a.load(t, p), a.load(t, p)
	third, err := second.Share()
	if err != nil {
		t.Fatal(err)
	}
	checkUsage(t, p, 1, 0)
	for _, w := range []*seal.Weights{first, second} {
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := second.Share(); !errors.Is(err, seal.ErrClosed) {
		t.Errorf("Share after Close = %v, want ErrClosed", err)
	}
	checkUsage(t, p, 1, 0)
	if got := content(t, third, "a.gguf"); got != strings.Repeat("a", mib) {
		t.Errorf("what is still held has %d bytes", len(got))
	}
	third.Close()
	checkUsage(t, p, 0, 1)
	warm := p.Get(a.m)
	if !warm.Valid() || content(t, warm, "a.gguf") != strings.Repeat("a", mib) {
		t.Error("Get does not return what is warm")
	}
	warm.Close()
	a.checkReads(t, 1)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// Weights with the same digests under other names are other weights.
func TestPoolKnowsNames(t *testing.T) {
	p := seal.NewPool(4 * mib)
	a := newModel(t, "a")
	other := map[string]string{"b.gguf": strings.Repeat("a", mib)}
	defer p.Close()
	defer a.load(t, p).Close()
	if m := manifest(t, other); m.Root() != a.m.Root() || p.Get(m) != nil {
		t.Errorf("weights of the same root %s under another name are taken for the same", m.Root())
	}
}

// Room is made by what was not used for longest, never by what is held, and not in vain.
func TestPoolEvicts(t *testing.T) {
	before := descriptors(t)
	a, b, c, d := newModel(t, "a"), newModel(t, "b"), newModel(t, "c"), newModel(t, "d")
	p := seal.NewPool(3 * mib)
	held := a.load(t, p)
	b.load(t, p).Close()
	c.load(t, p).Close()
	b.load(t, p).Close() // used again: c is the oldest now
	checkUsage(t, p, 1, 2)
	dd := d.load(t, p)
	checkUsage(t, p, 2, 1)
	b.load(t, p).Close()
	b.checkReads(t, 1)
	c.load(t, p).Close()
	c.checkReads(t, 2)
	if got := content(t, held, "a.gguf"); got != strings.Repeat("a", mib) {
		t.Error("what is held was let go")
	}

	tooLarge := map[string]string{"x": strings.Repeat("x", 2*mib)}
	if _, err := p.Load(t.Context(), manifest(t, tooLarge), newSource(t, tooLarge), seal.Options{}); !errors.Is(err, seal.ErrTooLarge) {
		t.Errorf("Load = %v, want ErrTooLarge", err)
	}
	checkUsage(t, p, 2, 1) // nothing went for a load that can't be
	held.Close()
	dd.Close()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	checkUsage(t, p, 0, 0)
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

// The machine's own memory counts too, before a load and while it runs.
func TestPoolLooksAtTheMachine(t *testing.T) {
	content := map[string]string{"x": strings.Repeat("x", 300*mib)}
	m, src := manifest(t, content), newSource(t, content)
	for name, room := range map[string]func(asked int) (hostmem.Room, error){
		"too little": func(int) (hostmem.Room, error) {
			return hostmem.Room{Bytes: 400 * mib, Limit: "memory.max of a test"}, nil
		},
		"runs short": func(asked int) (hostmem.Room, error) {
			return hostmem.Room{Bytes: max(0, 4-int64(asked)) * 1000 * mib, Limit: "memory.max of a test"}, nil
		},
		"unknown": func(int) (hostmem.Room, error) { return hostmem.Room{}, os.ErrPermission },
	} {
		t.Run(name, func(t *testing.T) {
			before, asked := descriptors(t), 0
			p := seal.NewPool(1 << 40)
			p.SetAvailable(func() (hostmem.Room, error) { asked++; return room(asked) })
			w, err := p.Load(t.Context(), m, src, seal.Options{})
			if w.Valid() || err == nil || name != "unknown" && (!errors.Is(err, seal.ErrTooLarge) || !strings.Contains(err.Error(), "memory.max of a test")) {
				t.Errorf("Load = %v, want ErrTooLarge that names the limit", err)
			}
			checkUsage(t, p, 0, 0)
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors are left open", after-before)
			}
		})
	}
}

// Weights that are larger than the whole pool are measured, if that was asked for, and prove what they were at load only.
func TestMeasured(t *testing.T) {
	before := descriptors(t)
	a, p := newModel(t, "a"), seal.NewPool(mib-1)
	if _, err := p.Load(t.Context(), a.m, a.src, seal.Options{}); !errors.Is(err, seal.ErrTooLarge) {
		t.Fatalf("Load without leave to measure = %v, want ErrTooLarge", err)
	}
	w, err := p.Load(t.Context(), a.m, a.src, seal.Options{Measured: true})
	if err != nil {
		t.Fatal(err)
	}
	if w.Level() != seal.Measured || content(t, w, "a.gguf") != strings.Repeat("a", mib) {
		t.Errorf("level is %s, want measured", w.Level())
	}
	checkUsage(t, p, 0, 0)
	path := filepath.Join(a.src.dir, encode("a.gguf"))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("b"), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := w.Dup("a.gguf"); !errors.Is(err, seal.ErrChanged) {
		t.Errorf("Dup of a file that was written since = %v, want ErrChanged", err)
	}
	w.Close()
	wrong := new(seal.MismatchError)
	if _, err := p.Load(t.Context(), a.m, a.src, seal.Options{Measured: true}); !errors.As(err, &wrong) {
		t.Errorf("Load again = %v, want a MismatchError: what was measured before counts no more", err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}

	// Room enough: the strongest level is taken although less would do.
	b, roomy := newModel(t, "b"), seal.NewPool(mib)
	w, err = roomy.Load(t.Context(), b.m, b.src, seal.Options{Measured: true})
	if err != nil || w.Level() != seal.Sealed {
		t.Errorf("Load = %v, %v, want level sealed", w, err)
	}
	w.Close()
	roomy.Close()
}

// A file that is written after it was read, and before all of it is known to be right, is not the one that was measured.
func TestMeasuredWhileItIsWritten(t *testing.T) {
	a, p := newModel(t, "a"), seal.NewPool(mib-1)
	var once sync.Once
	_, err := p.Load(t.Context(), a.m, a.src, seal.Options{Measured: true, Progress: func(int64, int64) {
		once.Do(func() {
			if err := os.WriteFile(filepath.Join(a.src.dir, encode("a.gguf")), []byte(strings.Repeat("b", mib)), 0o600); err != nil {
				t.Error(err)
			}
		})
	}})
	if !errors.Is(err, seal.ErrChanged) {
		t.Errorf("Load = %v, want ErrChanged", err)
	}
}
