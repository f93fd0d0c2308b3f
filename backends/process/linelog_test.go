package process_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// A lineLog keeps log lines and wakes whoever waits for one.
type lineLog struct {
	mu      sync.Mutex
	text    string
	changed chan struct{}
}

func newLineLog() *lineLog { return &lineLog{changed: make(chan struct{})} }

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(p)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

func (l *lineLog) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

// more returns a channel that is closed when there is more.
func (l *lineLog) more() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *lineLog) waitFor(t *testing.T, want string) {
	t.Helper()
	for limit := time.After(patience); ; {
		l.mu.Lock()
		text, changed := l.text, l.changed
		l.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("log never said %q", want)
		}
	}
}

func (l *lineLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
