package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// Names within the directory out of sight in which an import makes its weights.
const (
	modelName = "model"     // the file or directory that is to become visible
	partName  = "part"      // a file that is not whole
	readyName = "signature" // on its way to become signatureName

	signatureName = "model.sig" // of the signature in a model's directory
)

// PutWeights copies the weights of a signature from the bundle into a directory of weights, unless a good copy lies there.
// They are written out of sight, each file whole before it has its name, read back and checked against the signature's
// manifest, and only then get their name. What an interrupted import has left is gone on with. Nobody but the gateway's
// decision says whose signature it is.
//
// Others may write into that directory too: nothing outside it is changed, whatever they put in the way.
func (b *Bundle) PutWeights(ctx context.Context, dir string, signature *statement.Signed) error {
	m, err := oms.ParseManifest(signature)
	if err != nil {
		return err
	}
	if found, err := store.FindWeights([]string{dir}, m.Root()); err == nil {
		for _, path := range found {
			if _, err := verifier.Verify(ctx, path, m, verifier.Options{IgnoreUnsigned: true}); err == nil {
				return nil
			}
		}
	}
	if err := b.putWeights(ctx, dir, signature, m); err != nil {
		return fmt.Errorf("import weights %s into %s: %w", m.Root(), dir, err)
	}
	return nil
}

func (b *Bundle) putWeights(ctx context.Context, dir string, signature *statement.Signed, m *oms.Manifest) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	in, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer in.Close()
	short := strings.TrimPrefix(m.Root(), "sha256:")[:16]
	aside := ".import-" + short
	hidden, err := hide(in, aside)
	if err != nil {
		return err
	}
	defer hidden.Close()
	a := &arrival{bundle: b, manifest: m, signature: signature, dir: in, hidden: hidden, aside: aside, name: short}
	if err := a.room(); err != nil {
		return err
	}
	for _, f := range m.Files() {
		if err := a.putFile(ctx, f.Name); err != nil {
			return err
		}
	}
	// An import that was interrupted at its very end has left the signature there.
	model := filepath.Join(hidden.Name(), modelName)
	if _, err := verifier.Verify(ctx, model, m, verifier.Options{Signature: filepath.Join(model, signatureName)}); err != nil {
		if ctx.Err() != nil {
			return err
		}
		// What is there is not what was signed: the next try begins anew.
		return errors.Join(err, in.RemoveAll(aside))
	}
	if err := a.reveal(); err != nil {
		return err
	}
	return in.RemoveAll(aside)
}

// hide opens the directory of an import, which it makes unless it is there. Anything else of its name gives way, such as
// a link to another directory.
func hide(in *os.Root, name string) (*os.Root, error) {
	if info, err := in.Lstat(name); err == nil && !info.IsDir() {
		if err := in.Remove(name); err != nil {
			return nil, err
		}
	}
	if err := in.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return in.OpenRoot(name)
}

// An arrival is weights on their way into a directory of weights.
type arrival struct {
	bundle    *Bundle
	manifest  *oms.Manifest
	signature *statement.Signed

	dir    *os.Root // of weights
	hidden *os.Root // in it
	aside  string   // the name of hidden
	name   string   // that the weights get
}

// putFile copies one file, unless it is there whole.
func (a *arrival) putFile(ctx context.Context, name string) error {
	path := modelName
	if name != oms.SingleFile {
		path = filepath.Join(path, filepath.FromSlash(name)) // the manifest's names are clean and below it
	}
	at, sum, err := a.bundle.find(a.manifest.Root(), name)
	if err != nil {
		return err
	}
	if info, err := a.hidden.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() == at.size {
		return nil // Verify reads it again with all others
	}
	if err := a.hidden.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	h := sha256.New()
	if err := a.create(partName, io.TeeReader(until(ctx, io.NewSectionReader(a.bundle.file, at.start, at.size)), h)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return errors.Join(fmt.Errorf("%w: file %s hashes to %s, want %s: it was changed on its way", ErrMalformed, name, got, sum), a.hidden.Remove(partName))
	}
	return a.hidden.Rename(partName, path)
}

// create writes a durable file out of sight. It is a new one, however much of it an earlier import has left: what has its
// name may be another's file as well, by a second name.
func (a *arrival) create(name string, from io.Reader) error {
	if err := a.hidden.RemoveAll(name); err != nil {
		return err
	}
	f, err := a.hidden.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Sync(), f.Close())
}

// room refuses to begin what can't end for want of space.
func (a *arrival) room() error {
	var need int64
	for _, f := range a.manifest.Files() {
		at, _, err := a.bundle.find(a.manifest.Root(), f.Name)
		if err != nil {
			return err
		}
		need += at.size
	}
	have, err := a.left()
	if err != nil {
		return err
	}
	need -= have
	dir := a.dir.Name()
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("look for room in %s: %w", dir, err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; need > free {
		return fmt.Errorf("%s has %d bytes free, and the weights need %d more: %w", dir, free, need, unix.ENOSPC)
	}
	return nil
}

// left returns how many bytes of files an earlier import has left. What none leaves, such as links, it removes.
func (a *arrival) left() (total int64, err error) {
	err = fs.WalkDir(a.hidden.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.IsDir():
			return err
		case !e.Type().IsRegular():
			return a.hidden.Remove(path)
		}
		info, err := a.hidden.Lstat(path)
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

var extension = regexp.MustCompile(`^\.[A-Za-z0-9]{1,16}$`)

// reveal gives checked weights their name. A crash before the last rename leaves them out of sight, and after it they are
// complete: a signature is what makes weights visible.
func (a *arrival) reveal() error {
	info, err := a.hidden.Lstat(modelName)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		called, _ := a.signature.Subject()
		if ext := filepath.Ext(called); extension.MatchString(ext) {
			a.name += ext
		}
		if err := a.rename(); err != nil {
			return err
		}
		return store.WriteFile(filepath.Join(a.dir.Name(), a.name+".sig"), a.signature.Bundle(), 0o644)
	}
	// Written beside the model and moved into it: an unlisted file that is half there would spoil the next try.
	if err := a.create(readyName, bytes.NewReader(a.signature.Bundle())); err != nil {
		return err
	}
	if err := a.hidden.Rename(readyName, filepath.Join(modelName, signatureName)); err != nil {
		return err
	}
	err = fs.WalkDir(a.hidden.FS(), modelName, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return store.SyncDir(a.hidden.Open(path))
	})
	if err != nil {
		return err
	}
	if err := a.dir.RemoveAll(a.name); err != nil { // an earlier copy, which was not good
		return err
	}
	return a.rename()
}

// rename moves the model to where it is seen.
func (a *arrival) rename() error {
	return errors.Join(a.dir.Rename(filepath.Join(a.aside, modelName), a.name), store.SyncDir(a.dir.Open(".")))
}

// PutStatements writes the bundle's statements into a directory that a gateway follows, in an order in which each step is
// a whole decision. It returns how many were new.
func (b *Bundle) PutStatements(dir string) (fresh int, err error) {
	have, _, err := store.ReadStatements([]string{dir})
	if err != nil {
		return 0, err
	}
	for _, s := range b.Statements {
		if containsBundle(have, s) {
			continue
		}
		sum := sha256.Sum256(s.Bundle())
		name := fmt.Sprintf("imported-%.16s-%.8s.json", s.ID().Hex(), hex.EncodeToString(sum[:]))
		if err := store.WriteFile(filepath.Join(dir, name), s.Bundle(), 0o644); err != nil {
			return fresh, err
		}
		fresh++
	}
	return fresh, nil
}

func containsBundle(set []*statement.Signed, s *statement.Signed) bool {
	for _, other := range set {
		if sameBytes(other, s) {
			return true
		}
	}
	return false
}
