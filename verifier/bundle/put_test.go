package bundle_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/bundle"
)

// A site is where an import does its work, and what it has no business with.
type site struct {
	*testing.T
	dir     string
	hidden  string // where weights are made
	visible string // their name afterwards, but for its extension
	outside string // a directory of someone else
	was     map[string]string
}

func newSite(t *testing.T, d delivery) site {
	t.Helper()
	short := strings.TrimPrefix(d.manifest.Root(), "sha256:")[:16]
	s := site{T: t, dir: t.TempDir(), outside: t.TempDir()}
	s.hidden, s.visible = filepath.Join(s.dir, "models", ".import-"+short), filepath.Join(s.dir, "models", short)
	prepare(t, s.dir)
	// Names that an import uses, so that it would find them if it got there.
	for _, name := range []string{"precious", "part", "signature", "weights.gguf", "tokenizer.json", "model/weights.gguf", "model/sub/tokenizer.json", "model/model.sig"} {
		path := filepath.Join(s.outside, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("precious"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s.was = s.contents()
	return s
}

// contents returns what is outside, by name.
func (s site) contents() map[string]string {
	s.Helper()
	found := map[string]string{}
	dir := os.DirFS(s.outside)
	err := fs.WalkDir(dir, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(dir, path)
		found[path] = e.Type().String() + string(data)
		return err
	})
	if err != nil {
		s.Error(err)
	}
	return found
}

// check imports, for good if need be after what was found was refused once, and wants nothing outside to have changed.
func (s site) check(d delivery) {
	s.Helper()
	err := d.bring(s.dir)
	if bad := new(verifier.Refused); errors.As(err, &bad) {
		err = d.bring(s.dir)
	}
	if n := d.arrived(s.dir); err != nil || n != 3 {
		s.Errorf("import = %v, and %d statements are there", err, n)
	}
	if err := d.check(s.dir); err != nil {
		s.Error(err)
	}
	s.checkOutside()
}

func (s site) checkOutside() {
	s.Helper()
	if is := s.contents(); !maps.Equal(is, s.was) {
		s.Errorf("outside there is %q, and was %q", is, s.was)
	}
}

// plant puts something in the place of what is there.
func (s site) plant(path string, put func(path string) error) {
	s.Helper()
	os.Rename(path, s.hidden+".away")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), put(path)); err != nil {
		s.Error(err)
	}
}

// link plants a link to something outside at a name out of sight.
func link(name, to string) func(site) {
	return func(s site) {
		s.plant(filepath.Join(s.hidden, name), func(path string) error { return os.Symlink(filepath.Join(s.outside, to), path) })
	}
}

// second makes a name out of sight another one of a file outside.
func second(name, of string) func(site) {
	return func(s site) {
		s.plant(filepath.Join(s.hidden, name), func(path string) error { return os.Link(filepath.Join(s.outside, of), path) })
	}
}

// plantings are what others put into a directory of weights: ways out of it.
var plantings = []struct {
	name   string
	single bool // for a model that is a file
	plant  func(site)
}{
	{"nothing", true, func(site) {}},
	{"nothing", false, func(site) {}},
	{"the directory out of sight, to a directory", true, link("", "")},
	{"the directory out of sight, to a directory", false, link("", "")},
	{"the directory out of sight, to one beside it", false, func(s site) {
		s.plant(s.hidden, func(path string) error {
			beside := filepath.Join(s.dir, "models", "other")
			return errors.Join(os.Rename(s.outside, beside), os.Symlink(beside, s.outside), os.Symlink("other", path))
		})
	}},
	{"the directory out of sight, to nothing", false, link("", "none")},
	{"the directory out of sight, a file", false, func(s site) {
		s.plant(s.hidden, func(path string) error { return os.WriteFile(path, nil, 0o644) })
	}},
	{"part, to a file", true, link("part", "precious")},
	{"part, to a file", false, link("part", "precious")},
	{"part, to nothing", false, link("part", "none")},
	{"part, a file's second name", false, second("part", "precious")},
	{"part, a directory with a link in it", false, func(s site) {
		s.plant(filepath.Join(s.hidden, "part"), func(path string) error {
			return errors.Join(os.Mkdir(path, 0o755), os.Symlink(s.outside, filepath.Join(path, "x")))
		})
	}},
	{"model, to a directory", true, link("model", "model")},
	{"model, to a directory", false, link("model", "model")},
	{"model, to a file", true, link("model", "precious")},
	{"model, to nothing", false, link("model", "none")},
	{"model, a file's second name", true, second("model", "precious")},
	{"model/sub, to a directory", false, link("model/sub", "")},
	{"model/sub, to the directory above", false, func(s site) {
		s.plant(filepath.Join(s.hidden, "model", "sub"), func(path string) error { return os.Symlink("..", path) })
	}},
	{"model/weights.gguf, to a file", false, link("model/weights.gguf", "precious")},
	{"model/model.sig, to a file", false, link("model/model.sig", "precious")},
	{"signature, to a file", false, link("signature", "precious")},
	{"signature, a file's second name", false, second("signature", "precious")},
	{"the model's name, to a directory", false, func(s site) {
		s.plant(s.visible, func(path string) error { return os.Symlink(s.outside, path) })
	}},
	{"the model's name, to a file", true, func(s site) {
		s.plant(s.visible+".gguf", func(path string) error { return os.Symlink(filepath.Join(s.outside, "precious"), path) })
	}},
	{"its signature's name, to a file", true, func(s site) {
		s.plant(s.visible+".gguf.sig", func(path string) error { return os.Symlink(filepath.Join(s.outside, "precious"), path) })
	}},
}

// each runs a test of each planting, at a new site.
func each(t *testing.T, test func(s site, d delivery, plant func(site))) {
	t.Helper()
	deliveries := map[bool]delivery{true: newDelivery(t, true), false: newDelivery(t, false)}
	for _, tt := range plantings {
		t.Run(fmt.Sprintf("%s/single %v", tt.name, tt.single), func(t *testing.T) {
			d := deliveries[tt.single]
			test(newSite(t, d), d, tt.plant)
		})
	}
}

// TestImportPlanted: whatever an import finds in its way, it succeeds and changes nothing elsewhere.
func TestImportPlanted(t *testing.T) {
	each(t, func(s site, d delivery, plant func(site)) {
		plant(s)
		s.check(d)
	})
}

// meanwhile does something when it is asked whether it has ended, which is before each read of a file.
type meanwhile struct {
	context.Context //nolint:containedctx // it is one
	do              func()
}

func (m meanwhile) Err() error {
	m.do()
	return m.Context.Err()
}

// TestImportPlantedMeanwhile: what is put in its way while it copies a file may stop an import, and the next one succeeds.
func TestImportPlantedMeanwhile(t *testing.T) {
	each(t, func(s site, d delivery, plant func(site)) {
		b, err := bundle.Open(d.file)
		if err != nil {
			s.Fatal(err)
		}
		defer b.Close()
		copying := sync.OnceFunc(func() {
			if _, err := os.Lstat(filepath.Join(s.hidden, "part")); err != nil {
				s.Error(err)
			}
			plant(s)
		})
		err = b.PutWeights(meanwhile{s.Context(), copying}, filepath.Join(s.dir, "models"), d.signature)
		s.Logf("PutWeights = %v", err)
		s.checkOutside()
		s.check(d)
	})
}

// TestImportEnded: an import that is ended while it checks what it has copied leaves that for the next one.
func TestImportEnded(t *testing.T) {
	d := newDelivery(t, false)
	s := newSite(t, d)
	b, err := bundle.Open(d.file)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	copied := filepath.Join(s.hidden, "model", "weights.gguf") // the last
	err = b.PutWeights(meanwhile{ctx, func() {
		if _, err := os.Lstat(copied); err == nil {
			cancel()
		}
	}}, filepath.Join(s.dir, "models"), d.signature)
	if _, lost := os.Lstat(copied); !errors.Is(err, context.Canceled) || lost != nil {
		t.Errorf("PutWeights = %v, want %v, and what was copied: %v", err, context.Canceled, lost)
	}
	s.check(d)
}
