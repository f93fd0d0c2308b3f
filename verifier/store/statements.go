package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

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
			data, err := readFile(path, statement.MaxBundle)
			if err != nil {
				bad = append(bad, Problem{path, err})
				continue
			}
			found, err := statement.ParseLines(data)
			if err != nil {
				bad = append(bad, Problem{path, err})
				continue
			}
			set = append(set, found...)
		}
	}
	return set, bad, nil
}

// Delays of [WatchStatements].
const (
	// settle is how long a directory must be quiet before it is read: copying several files is one change.
	settle = 100 * time.Millisecond
	// rescan bounds how late a change is seen where the kernel's notice is lost (network file systems, overflow).
	rescan = 10 * time.Second
)

// WatchStatements calls changed, from one goroutine, soon after something in dirs has changed and every 10 s besides,
// until ctx ends. It returns once watching has begun; changed must not block for long.
func WatchStatements(ctx context.Context, dirs []string, changed func()) (wait func(), err error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch statements: %w", err)
	}
	for _, dir := range dirs {
		if err := w.Add(dir); err != nil {
			w.Close()
			return nil, fmt.Errorf("watch statements: %s: %w", dir, err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer w.Close()
		watch(ctx, w, changed)
	}()
	return func() { <-done }, nil
}

func watch(ctx context.Context, w *fsnotify.Watcher, changed func()) {
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	var quiet <-chan time.Time // nil while nothing has changed
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-w.Events:
			if !ok {
				return
			}
			quiet = time.After(settle)
		case _, ok := <-w.Errors: // an overflow: something changed, we don't know what
			if !ok {
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
