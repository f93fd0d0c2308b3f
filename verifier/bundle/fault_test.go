package bundle_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/bundle"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// A delivery is a bundle of one release, and what is to become of it at another site.
type delivery struct {
	*testing.T
	file      string
	signature *statement.Signed
	manifest  *oms.Manifest
}

// newDelivery packs a release of a model, which is a file or a directory of two.
func newDelivery(t *testing.T, single bool) delivery {
	t.Helper()
	w := trusttest.New(t)
	w.SignPolicy(nil)
	model := filepath.Join(w.Dir, "chat.gguf")
	files := map[string]string{model: strings.Repeat("weights", 3000)}
	if !single {
		model = filepath.Join(w.Dir, "chat")
		files = map[string]string{filepath.Join(model, "weights.gguf"): strings.Repeat("weights", 3000), filepath.Join(model, "sub", "tokenizer.json"): "{}"}
	}
	for path, content := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	id := w.Release(model, nil)
	w.Approve(id, trusttest.Alice, trust.Approval{})
	w.Publish(id, "chat", 1)
	set, _, err := store.ReadStatements([]string{w.Statements})
	if err != nil {
		t.Fatal(err)
	}
	d := delivery{T: t, file: filepath.Join(w.Dir, "bundle.tar")}
	for _, s := range set {
		if r, err := trust.ParseRelease(s); err == nil {
			d.signature, d.manifest = r.WeightsStatement(), r.Manifest()
		}
	}
	out, err := os.Create(d.file)
	if err != nil {
		t.Fatal(err)
	}
	err = bundle.Write(t.Context(), out, bundle.Contents{Statements: set, Weights: []bundle.Weights{{Path: model, Signature: d.signature, Name: "chat"}}})
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	return d
}

// bring imports the bundle below a directory, weights first.
func (d delivery) bring(dir string) error {
	b, err := bundle.Open(d.file)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.PutWeights(d.Context(), filepath.Join(dir, "models"), d.signature); err != nil {
		return err
	}
	_, err = b.PutStatements(filepath.Join(dir, "statements"))
	return err
}

// prepare makes the directories of a site, for good.
func prepare(t *testing.T, dir string) {
	t.Helper()
	err := errors.Join(os.Mkdir(filepath.Join(dir, "models"), 0o755), os.Mkdir(filepath.Join(dir, "statements"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// check wants weights that are visible to be the signed ones, statements that are visible to be whole, and a publication
// only where there is all else.
func (d delivery) check(dir string) error {
	found, err := store.FindWeights([]string{filepath.Join(dir, "models")}, d.manifest.Root())
	for _, path := range found {
		if _, err := verifier.Verify(d.Context(), path, d.manifest, verifier.Options{Signature: filepath.Join(path, "model.sig")}); err != nil {
			return fmt.Errorf("weights are visible and not the signed ones: %w", err)
		}
	}
	set, bad, rerr := store.ReadStatements([]string{filepath.Join(dir, "statements")})
	switch {
	case errors.Is(rerr, os.ErrNotExist):
		return nil
	case rerr != nil:
		return rerr
	case len(bad) > 0:
		return fmt.Errorf("a statement is half visible: %w", bad[0].Err)
	case len(set) > 0 && err != nil:
		return fmt.Errorf("statements are visible before their weights: %w", err)
	}
	for _, s := range set {
		if s.PredicateType() == trust.PublicationType && len(set) < 3 {
			return errors.New("a publication is visible before what it needs")
		}
	}
	return nil
}

// arrived returns how many statements are there, if the weights are.
func (d delivery) arrived(dir string) int {
	d.Helper()
	if found, err := store.FindWeights([]string{filepath.Join(dir, "models")}, d.manifest.Root()); err != nil || len(found) == 0 {
		return -1
	}
	set, _, err := store.ReadStatements([]string{filepath.Join(dir, "statements")})
	if err != nil {
		return -1
	}
	return len(set)
}

// TestImportFaults fails an import at each of its operations on files, once and from then on, and ends its process there:
// what is visible is whole, and the next import completes it.
func TestImportFaults(t *testing.T) {
	for _, single := range []bool{true, false} {
		d := newDelivery(t, single)
		disk, after := crashtest.Mount(t), crashtest.Mount(t)
		for n := 1; ; n++ {
			if n > 500 {
				t.Fatal("an import has no end of operations")
			}
			disk.Load(crashtest.Empty())
			prepare(t, disk.Path())
			disk.Arm(crashtest.Fault{At: n, Errno: unix.EIO, Rest: n%2 == 0})
			err := d.bring(disk.Path())
			struck := disk.Struck()
			disk.Heal()
			if err == nil { // also where what failed was a step that could be done another way
				after.Load(disk.Image(crashtest.PowerLost))
				if n := d.arrived(after.Path()); n != 3 {
					t.Errorf("single %v, operation %d failed, and the import did not; %d statements are there", single, n, n)
				}
			}
			for _, crash := range crashtest.Crashes {
				after.Load(disk.Image(crash))
				if err := d.check(after.Path()); err != nil {
					t.Errorf("single %v, operation %d, then %v: %v", single, n, crash, err)
				}
				if err := errors.Join(d.bring(after.Path()), d.check(after.Path())); err != nil {
					t.Errorf("single %v, operation %d, then %v, then again: %v", single, n, crash, err)
				}
			}
			if !struck {
				t.Logf("single %v: %d operations", single, n-1)
				break
			}
		}
	}
}
