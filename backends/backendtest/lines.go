package backendtest

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// Lines are what a process writes; those who wait for some are woken. The zero value is ready.
type Lines struct {
	mu      sync.Mutex
	all     string
	changed chan struct{}
}

func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all += string(p)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(p), nil
}

// Text returns all of it so far.
func (l *Lines) Text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// WaitForMore waits until the process has written something so many times more.
func (l *Lines) WaitForMore(t *testing.T, want string, times int) {
	t.Helper()
	l.until(t, func(before, now string) bool { return strings.Count(now[len(before):], want) >= times })
}

// WaitFor waits until the process has written something.
func (l *Lines) WaitFor(t *testing.T, want string) {
	t.Helper()
	l.until(t, func(_, now string) bool { return strings.Contains(now, want) })
}

func (l *Lines) until(t *testing.T, enough func(before, now string) bool) {
	t.Helper()
	before := l.Text()
	for limit := time.After(Patience); ; {
		l.mu.Lock()
		now := l.all
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		if enough(before, now) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("it only wrote:\n%s", now)
		}
	}
}
