package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Problem is a file in a statements directory that holds no statement.
type Problem struct {
	File string
	Err  error
}

// ReadStatements returns every well-formed statement in the files *.json and *.jsonl of dirs, unverified and in no
// particular order, and a problem for every such file that is not one. A directory that can't be read is an error.
func ReadStatements(dirs []string) (set []*statement.Signed, bad []Problem, err error) {
	return new(Statements).Read(dirs)
}

// Statements reads directories of statements again and again. A file that looks as before is not read again, and its
// statements are the same pointers. The zero value has read nothing; it must not be used concurrently.
type Statements struct{ files map[string]readFile }

// A readFile is what a file held when it looked like that.
type readFile struct {
	look looks
	set  []*statement.Signed
	err  error
}

// looks are what changes when a file does, unless somebody takes pains that it does not: who can, could keep the file
// from us as well.
type looks struct {
	inode        uint64
	size         int64
	mtime, ctime unix.Timespec
}

// Read is [ReadStatements].
func (s *Statements) Read(dirs []string) (set []*statement.Signed, bad []Problem, err error) {
	files := map[string]readFile{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, nil, fmt.Errorf("read statements: %w", err)
		}
		if len(entries) > maxStatementFiles {
			return nil, nil, fmt.Errorf("read statements: %s holds more than %d files", dir, maxStatementFiles)
		}
		for _, e := range entries {
			if !statementFile(e.Name()) || e.IsDir() {
				continue
			}
			path := filepath.Join(dir, e.Name())
			f := s.read(path)
			files[path] = f
			if f.err != nil {
				bad = append(bad, Problem{path, f.err})
				continue
			}
			set = append(set, f.set...)
		}
	}
	s.files = files
	return set, bad, nil
}

// read reads a file, unless it looks as it did.
func (s *Statements) read(path string) (f readFile) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil {
		f.look = looks{st.Ino, st.Size, st.Mtim, st.Ctim}
		if before, known := s.files[path]; known && before.look == f.look {
			return before
		}
	}
	data, err := ReadFile(path, statement.MaxBundle)
	if err != nil {
		return readFile{err: err} // it may go better the next time
	}
	f.set, f.err = statement.ParseLines(data)
	return f
}

// Delays of [WatchStatements].
const (
	// settle is how long a directory must be quiet before it is read: copying several files is one change.
	settle = 100 * time.Millisecond
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
	var quiet <-chan time.Time // nil while nothing has changed
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-events:
			if !open {
				return
			}
			quiet = time.After(settle)
		case _, open := <-trouble:
			if !open {
				return
			}
			quiet = time.After(settle)
		case <-quiet:
			quiet = nil
			changed()
		case <-tick.C:
			changed()
		}
	}
}
