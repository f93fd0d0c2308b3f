package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Problem is something in a statements directory that is no statement.
type Problem struct {
	File      string
	Statement statement.ID // that it would be, "" if that can't be told; it proves nothing
	Err       error
}

// ReadStatements returns every well-formed statement in the files *.json and *.jsonl of dirs, unverified and in no
// particular order, and a problem for all that is not one. A directory that can't be read is an error.
func ReadStatements(dirs []string) (set []*statement.Signed, bad []Problem, err error) {
	if set, bad, err = new(Statements).Read(dirs); err != nil {
		return nil, nil, err
	}
	return set, bad, nil
}

// Statements reads directories of statements again and again. A file that looks as before is not read again, and its
// statements are the same pointers. The zero value has read nothing; it must not be used concurrently.
type Statements struct {
	dirs map[string]map[string]readFile
}

// A readFile is what a file held when it looked like that.
type readFile struct {
	look Looks
	set  []*statement.Signed
	bad  []Problem
}

// Looks are what changes when a file does, unless somebody takes pains that it does not: who can, could keep the file
// from us as well. They can be compared.
type Looks struct {
	inode        uint64
	size         int64
	mtime, ctime unix.Timespec
}

// Read is [ReadStatements], but a directory that can't be read now is no reason to overlook the others: beside the error
// it returns what they hold, and what that directory held when it was read last.
func (s *Statements) Read(dirs []string) (set []*statement.Signed, bad []Problem, err error) {
	now := make(map[string]map[string]readFile, len(dirs))
	var errs []error
	for _, dir := range dirs {
		files, err := s.readDir(dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("read statements: %w", err))
			files = s.dirs[dir]
		}
		now[dir] = files
		for _, path := range slices.Sorted(maps.Keys(files)) {
			set, bad = append(set, files[path].set...), append(bad, files[path].bad...)
		}
	}
	s.dirs = now
	return set, bad, errors.Join(errs...)
}

func (s *Statements) readDir(dir string) (map[string]readFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxStatementFiles {
		return nil, fmt.Errorf("%s holds more than %d files", dir, maxStatementFiles)
	}
	files := map[string]readFile{}
	for _, e := range entries {
		if !statementFile(e.Name()) || e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		files[path] = s.read(s.dirs[dir], path)
	}
	return files, nil
}

// LookAt returns how a file looks now.
func LookAt(path string) (Looks, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Looks{}, fmt.Errorf("look at %s: %w", path, err)
	}
	return Looks{st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// read reads a file, unless it looks as it did.
func (s *Statements) read(before map[string]readFile, path string) (f readFile) {
	if look, err := LookAt(path); err == nil {
		f.look = look
		if was, known := before[path]; known && was.look == f.look {
			return was
		}
	}
	data, err := ReadFile(path, statement.MaxBundle)
	if err != nil {
		return readFile{bad: []Problem{{path, "", err}}} // it may go better the next time
	}
	set, bad := statement.ParseEach(data)
	f.set = set
	for _, line := range bad {
		f.bad = append(f.bad, Problem{path, line.Statement, line})
	}
	if len(set) == 0 && len(bad) == 0 {
		f.bad = []Problem{{path, "", fmt.Errorf("%w: no bundle in it", statement.ErrMalformed)}}
	}
	return f
}

// Delays of [WatchStatements].
const (
	// settle is how long a directory must be quiet before it is read: copying several files is one change.
	settle = 100 * time.Millisecond
	// latest is how long after a change it is read although it is not quiet: somebody may write there all the time.
	latest = 300 * time.Millisecond
	// rescan bounds how late a change is seen where the kernel's notice is lost (network file systems, overflow).
	rescan = 10 * time.Second
)

// WatchStatements calls changed, from one goroutine, soon after something in dirs has changed and every 10 s besides,
// until ctx ends; wait returns when it has ended. Only the second can be relied on: a directory that is away for a
// while, or that the kernel can't watch, is tried again each time. changed must not block for long.
func WatchStatements(ctx context.Context, dirs []string, changed func()) (wait func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil { // this user's watchers are used up
		w = nil
	}
	look := func() {
		for _, dir := range dirs {
			if w != nil {
				_ = w.Add(dir) // changes nothing for a directory that is watched
			}
		}
	}
	look()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// First watched and then read, so that nothing falls between the two.
		watch(ctx, w, func() { look(); changed() })
	}()
	return func() { <-done }
}

func watch(ctx context.Context, w *fsnotify.Watcher, changed func()) {
	var events <-chan fsnotify.Event // nil without a watcher
	var trouble <-chan error         // an overflow: something changed, we don't know what
	if w != nil {
		defer w.Close()
		events, trouble = w.Events, w.Errors
	}
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	var quiet, late <-chan time.Time // nil while nothing has changed
	touched := func() {
		quiet = time.After(settle)
		if late == nil {
			late = time.After(latest)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-events:
			if !open {
				return
			}
			touched()
		case _, open := <-trouble:
			if !open {
				return
			}
			touched()
		case <-quiet:
			quiet, late = nil, nil
			changed()
		case <-late:
			quiet, late = nil, nil
			changed()
		case <-tick.C:
			changed()
		}
	}
}
