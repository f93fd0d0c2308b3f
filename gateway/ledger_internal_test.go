package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// newBook returns a gateway that can do no more than to record, and its log.
func newBook(t *testing.T) (*Gateway, *bytes.Buffer) {
	t.Helper()
	m, err := newMeters(nil)
	if err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	return &Gateway{log: slog.New(slog.NewJSONHandler(log, nil)), meters: m, tracer: tracenoop.NewTracerProvider().Tracer(""), refused: func(string) {}}, log
}

// ended ends a request that is known by its id.
func (g *Gateway) ended(t *testing.T, id string, err error) {
	t.Helper()
	_, o := g.observe(t.Context(), &request{call: call{id: id}})
	o.end(err)
}

// ids are those of the lines in a log, in their order.
func (g *Gateway) ids(log *bytes.Buffer) string {
	g.ledger.recording.Lock()
	defer g.ledger.recording.Unlock()
	var all []string
	for line := range strings.Lines(log.String()) {
		_, rest, _ := strings.Cut(line, `"request_id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		all = append(all, id)
	}
	return strings.Join(all, " ")
}

func TestLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, log := newBook(t)
		begun := time.Now()
		g.ended(t, "a", nil)
		g.ended(t, "b", fmt.Errorf("too much: %w", &access.LimitError{Limit: "rate"}))
		if got := g.ids(log); got != "" {
			t.Errorf("recorded %q at once", got)
		}
		time.Sleep(recordedWithin)
		synctest.Wait()
		if got := g.ids(log); got != "a b" {
			t.Errorf("recorded %q after %s, want a b", got, recordedWithin)
		}
		if at := begun.Format(time.RFC3339Nano); strings.Count(log.String(), `"time":"`+at) != 2 {
			t.Errorf("the lines are not of %s, when both ended:\n%s", at, log)
		}
		time.Sleep(time.Second)
		g.ended(t, "c", nil)
		time.Sleep(recordedWithin)
		synctest.Wait()
		if got := g.ids(log); got != "a b c" {
			t.Errorf("recorded %q, want a b c", got)
		}
	})
}

// TestLedgerAtOnce has something go wrong, which is seen at once, and what ended before it first.
func TestLedgerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, log := newBook(t)
		g.ended(t, "a", nil)
		g.ended(t, "b", errors.New("no"))
		if got := g.ids(log); got != "a b" {
			t.Errorf("recorded %q, want a b", got)
		}
		g.ended(t, "c", nil)
		g.logOther(t.Context(), call{id: "d"}, "models", nil)
		if got := g.ids(log); got != "a b c d" {
			t.Errorf("recorded %q, want a b c d", got)
		}
	})
}

func TestLedgerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, log := newBook(t)
		for range maxUnrecorded {
			if got := g.ids(log); got != "" {
				t.Fatalf("recorded %q before there are %d", got, maxUnrecorded)
			}
			g.ended(t, "a", nil)
		}
		if got := strings.Fields(g.ids(log)); len(got) != maxUnrecorded {
			t.Errorf("recorded %d, want %d", len(got), maxUnrecorded)
		}
	})
}

// TestLedgerOrder has a log that is behind: nobody else may record meanwhile.
func TestLedgerOrder(t *testing.T) {
	g, _ := newBook(t)
	log := &behind{writing: make(chan struct{}), free: make(chan struct{})}
	g.log = slog.New(slog.NewJSONHandler(log, nil))
	var work sync.WaitGroup
	work.Go(func() { g.ended(t, "a", errors.New("no")) })
	<-log.writing
	if g.ledger.recording.TryLock() {
		t.Error("what ends now would be recorded before what is being recorded")
	}
	close(log.free)
	work.Wait()
}

// behind is a log that takes nothing until it is free.
type behind struct{ writing, free chan struct{} }

func (b *behind) Write(line []byte) (int, error) {
	close(b.writing)
	<-b.free
	return len(line), nil
}

func TestLedgerKeepsNoConversation(t *testing.T) {
	g, _ := newBook(t)
	r := &request{
		messages: []backends.Message{{Content: "secret"}}, places: []string{"secret"}, prompt: "secret", inputs: []string{"secret"},
		tools: []backends.Tool{{Name: "secret"}}, stop: []string{"secret"},
	}
	_, o := g.observe(t.Context(), r)
	o.end(nil)
	if text := fmt.Sprintf("%+v", r); strings.Contains(text, "secret") {
		t.Errorf("what waits to be recorded still holds %s", text)
	}
}

// TestUnread has a body come for a second before it turns out that it can't be read.
func TestUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, log := newBook(t)
		begun := time.Now()
		time.Sleep(time.Second)
		g.unread(t.Context(), begun, &request{channel: "a caller's\ntext"}, errors.New("no JSON"))
		if text := log.String(); !strings.Contains(text, `"channel":"","stream":false,"duration":1000000000`) {
			t.Errorf("the log lacks how long it took, or has what its caller wrote: %s", text)
		}
	})
}
