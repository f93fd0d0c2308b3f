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
			data, err := ReadFile(path, statement.MaxBundle)
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
