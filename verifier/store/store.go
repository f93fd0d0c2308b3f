// Package store is where statements and weights come from, and where the gateway's own small state rests.
//
// The one rule: nothing read here is trusted because of where it lay. Statements are returned unverified for
// trust.Decide to weigh, weights are found by the root they claim and must then pass verifier.Admit, and only
// the [State], which the gateway writes itself, is believed.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Bounds on what is read from directories that anyone may have filled.
const (
	maxStatementFiles = 100_000 // per directory
	maxWeightEntries  = 100_000 // per directory
	maxSignatureFile  = 64 << 20
	maxStateFile      = 16 << 20
)

// WriteFile writes data to path so that a reader, or a crash at any moment, finds the old file or the whole new one.
// When it returns nil the file and its name are durable. A hint of the order: contents, then name, then directory.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	// The dot keeps watchers of the directory from reading a half-written file.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
			os.Remove(f.Name())
		}
	}()
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir) // a crash before this may lose the new name, never the old file
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile reads a regular file of at most max bytes, following no link.
func readFile(path string, max int64) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > max:
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, info.Size(), max)
	}
	return os.ReadFile(path)
}

// statementFile reports whether a file of this name in a statements directory holds statements.
func statementFile(name string) bool {
	return !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".jsonl"))
}
