// Package store is where statements and weights come from, and where the gateway's own small state rests.
//
// The one rule: nothing read here is trusted because of where it lay. Statements are returned unverified for
// trust.Decide to weigh, weights are found by the root they claim and must then pass verifier.Admit, and only
// the [State], which the gateway writes itself, is believed.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile writes data to path so that a reader, or a crash at any moment, finds the old file or the whole new one.
// When it returns nil the file and its name are durable. The order is contents, then name, then directory.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	if info, err := os.Lstat(path); err == nil && info.Mode()&(fs.ModeDir|fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		return fmt.Errorf("write %s: it is there, and is no file", path) // a device would be replaced by one
	}
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
	return SyncDir(os.Open(dir)) // a crash before this may lose the new name, never the old file
}

// SyncDir makes the names in a directory durable, and closes it. It takes what opened the directory, so that it may be
// reached through an [os.Root].
func SyncDir(dir *os.File, err error) error {
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// makeDir makes a directory and those above it that are missing. When it returns nil their names are durable.
func makeDir(dir string) error {
	parent, there := filepath.Dir(dir), exists(dir)
	if !there {
		if err := makeDir(parent); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Also where it is there: who made it may have been killed before this. That was nobody who can't read its parent.
	if err := SyncDir(os.Open(parent)); err != nil && (!there || !errors.Is(err, fs.ErrPermission)) {
		return err
	}
	return nil
}

// ReadFile reads a regular file of at most limit bytes, through links as mounted configuration comes: where it lies
// proves nothing anyway. It is opened before it is looked at, and without waiting: whoever may write the directory can
// put a pipe in a file's place at any moment.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1)) // its size may change while it is read
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

// statementFile reports whether a file of this name in a statements directory holds statements.
func statementFile(name string) bool {
	return !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".jsonl"))
}
