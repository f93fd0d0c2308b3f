package site

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"
)

// An Event is a log line and when it was written.
type Event struct {
	At    time.Time
	Attrs map[string]any
}

// An eventLog keeps the first line with each message, since it was told to forget, and wakes whoever waits for one.
type eventLog struct {
	mu      sync.Mutex
	partial []byte
	first   map[string]Event
	changed chan struct{} // closed, and replaced, at each new line
	last    Tail
}

func newEventLog() *eventLog {
	return &eventLog{first: map[string]Event{}, changed: make(chan struct{})}
}

func (l *eventLog) Write(p []byte) (int, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last.add(p)
	l.partial = append(l.partial, p...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte("\n"))
		if !whole {
			break
		}
		l.partial = rest
		e := Event{At: now}
		if json.Unmarshal(line, &e.Attrs) != nil {
			continue // not of the log, and so kept in last alone
		}
		msg, _ := e.Attrs["msg"].(string)
		if _, known := l.first[msg]; !known {
			l.first[msg] = e
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// find returns the line, or a channel that is closed when there is more to look at.
func (l *eventLog) find(msg string) (Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.first[msg]; ok {
		return e, nil
	}
	return Event{}, l.changed
}

// forget begins anew: only what is written from now on is found.
func (l *eventLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = map[string]Event{}
}
