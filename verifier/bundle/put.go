package bundle

import (
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

// PutWeights copies the weights of a signature from the bundle into a directory of weights, unless a good copy lies there.
// They are written out of sight, each file whole before it has its name, read back and checked against the signature's
// manifest, and only then get their name. What an interrupted import has left is gone on with. Nobody but the gateway's
// decision says whose signature it is.
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
	short := strings.TrimPrefix(m.Root(), "sha256:")[:16]
	hidden := filepath.Join(dir, ".import-"+short)
	if err := os.MkdirAll(hidden, 0o755); err != nil {
		return err
	}
	if err := b.room(dir, hidden, m); err != nil {
		return err
	}
	model := filepath.Join(hidden, "model")
	for _, f := range m.Files() {
		if err := b.putFile(ctx, hidden, m.Root(), f.Name); err != nil {
			return fmt.Errorf("import weights %s: %w", m.Root(), err)
		}
	}
	// An import that was interrupted at its very end has left the signature there.
	if _, err := verifier.Verify(ctx, model, m, verifier.Options{Signature: filepath.Join(model, signatureName)}); err != nil {
		// What is there is not what was signed: the next try begins anew.
		return errors.Join(fmt.Errorf("import weights %s: %w", m.Root(), err), os.RemoveAll(hidden))
	}
	return reveal(hidden, filepath.Join(dir, short), signature)
}

// putFile copies one file, unless it is there whole.
func (b *Bundle) putFile(ctx context.Context, hidden, root, name string) error {
	path, half := filepath.Join(hidden, "model"), filepath.Join(hidden, "part")
	if name != oms.SingleFile {
		path = filepath.Join(path, filepath.FromSlash(name)) // the manifest's names are clean and below it
	}
	at, sum, err := b.find(root, name)
	if err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() == at.size {
		return nil // Verify reads it again with all others
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part, err := os.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(part, h), until(ctx, io.NewSectionReader(b.file, at.start, at.size)))
	if err := errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return errors.Join(fmt.Errorf("%w: file %s hashes to %s, want %s: it was changed on its way", ErrMalformed, name, got, sum), os.Remove(half))
	}
	return os.Rename(half, path)
}

// room refuses to begin what can't end for want of space.
func (b *Bundle) room(dir, hidden string, m *oms.Manifest) error {
	var need int64
	for _, f := range m.Files() {
		at, _, err := b.find(m.Root(), f.Name)
		if err != nil {
			return err
		}
		need += at.size
	}
	have, err := sizeOf(hidden)
	if err != nil {
		return err
	}
	need -= have
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("look for room in %s: %w", dir, err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; need > free {
		return fmt.Errorf("%s has %d bytes free, and the weights need %d more: %w", dir, free, need, unix.ENOSPC)
	}
	return nil
}

// sizeOf returns how many bytes the files below a directory have.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// signatureName is that of the signature in a model's directory.
const signatureName = "model.sig"

var extension = regexp.MustCompile(`^\.[A-Za-z0-9]{1,16}$`)

// reveal gives checked weights their name. A crash before the last rename leaves them out of sight, and after it they are
// complete: a signature is what makes weights visible.
func reveal(hidden, name string, signature *statement.Signed) error {
	model := filepath.Join(hidden, "model")
	info, err := os.Lstat(model)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		called, _ := signature.Subject()
		if ext := filepath.Ext(called); extension.MatchString(ext) {
			name += ext
		}
		if err := errors.Join(os.Rename(model, name), syncDir(filepath.Dir(name))); err != nil {
			return err
		}
		if err := store.WriteFile(name+".sig", signature.Bundle(), 0o644); err != nil {
			return err
		}
		return os.RemoveAll(hidden)
	}
	// Written beside the model and moved into it: an unlisted file that is half there would spoil the next try.
	ready := filepath.Join(hidden, "signature")
	if err := store.WriteFile(ready, signature.Bundle(), 0o644); err != nil {
		return err
	}
	if err := os.Rename(ready, filepath.Join(model, signatureName)); err != nil {
		return err
	}
	err = filepath.WalkDir(model, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncDir(path)
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(name); err != nil { // an earlier copy, which was not good
		return err
	}
	if err := errors.Join(os.Rename(model, name), syncDir(filepath.Dir(name))); err != nil {
		return err
	}
	return os.RemoveAll(hidden)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
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
