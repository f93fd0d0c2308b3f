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
		if _, known := l.first[messageOf(line)]; known {
			continue // as nearly all are, of requests: to read them would take from what is measured
		}
		e := Event{At: now}
		if json.Unmarshal(line, &e.Attrs) != nil {
			continue // not of the log, and so kept in last alone
		}
		if msg, ok := e.Attrs["msg"].(string); ok {
			l.first[msg] = e
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// messageOf is the message of a line, if that is as it stands there.
func messageOf(line []byte) string {
	_, rest, _ := bytes.Cut(line, []byte(`"msg":"`))
	msg, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(msg)
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
