package site

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"
)

// lookInterval is how often a log is looked at while something is waited for in it.
const lookInterval = 2 * time.Millisecond

// An Event is a log line and when it was written.
type Event struct {
	At    time.Time
	Attrs map[string]any
}

// An eventLog knows the first line with each message of a log file, since it was told to forget. The file is read when
// somebody looks, and not before: a reader that is woken by each request's line would take from what is measured.
type eventLog struct {
	path string

	mu      sync.Mutex
	read    int64  // bytes of the file
	partial []byte // of them, those behind the last line
	first   map[string]Event
	last    Tail
}

func newEventLog(path string) *eventLog { return &eventLog{path: path, first: map[string]Event{}} }

// find returns the first line with a message, if there is one by now.
func (l *eventLog) find(msg string) (e Event, found bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.look(); err != nil {
		return Event{}, false, err
	}
	e, found = l.first[msg]
	return e, found, nil
}

// forget begins anew: only what is written from now on is found.
func (l *eventLog) forget() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.look()
	l.first = map[string]Event{}
	return err
}

// look reads what was written since it was last done.
func (l *eventLog) look() error {
	f, err := os.Open(l.path)
	if err != nil {
		return fmt.Errorf("read the gateway's log: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, l.read, math.MaxInt64-l.read))
	if err != nil {
		return fmt.Errorf("read the gateway's log: %w", err)
	}
	l.read += int64(len(data))
	l.last.add(data)
	l.partial = append(l.partial, data...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte("\n"))
		if !whole {
			return nil
		}
		l.partial = rest
		l.take(line)
	}
}

// take notes a line, if it is the first with its message.
func (l *eventLog) take(line []byte) {
	var attrs map[string]any
	if json.Unmarshal(line, &attrs) != nil {
		return // not of the log, and so kept in last alone
	}
	msg, _ := attrs["msg"].(string)
	written, _ := attrs["time"].(string)
	at, err := time.Parse(time.RFC3339Nano, written)
	if _, known := l.first[msg]; !known && err == nil {
		l.first[msg] = Event{at, attrs}
	}
}
