package catalog_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// room is enough for one of the tiny models, and too little for two.
const room = 5 << 20

// newGapSite serves A, and has no room for another release beside it. Its log is at dir.
func newGapSite(t *testing.T) (s *site, a statement.ID, dir string) {
	t.Helper()
	s = newWorld(t)
	dir = filepath.Join(t.TempDir(), "audit")
	s.trail = audittest.OpenAt(t, dir)
	s.start(room)
	a = s.release("a.gguf", 1, nil)
	s.untilServes(a)
	return s, a, dir
}

// TestGap: without room for two releases one replaces the other with a gap, in which requests wait: none fails.
func TestGap(t *testing.T) {
	s, _, dir := newGapSite(t)
	asking, done := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for asking.Err() == nil {
				if err := s.ask(); err != nil {
					t.Errorf("a request around the gap: %v", err)
					return
				}
			}
		})
	}
	b := s.release("b.gguf", 2, nil)
	s.untilServes(b)
	done()
	askers.Wait()
	s.check(b, "I am version B.")
	declared := slices.ContainsFunc(records(t, dir), func(r audit.Record) bool {
		return r.Kind == audit.KindStop && strings.Contains(r.Why, "no memory for two releases at once")
	})
	if !declared {
		t.Error("the log does not declare the gap")
	}
}

// ask sends one request, and returns an error unless it is answered by the release that has it.
func (s *site) ask() error {
	serving, err := s.cat.Acquire(s.t.Context(), "chat")
	if err != nil {
		return err
	}
	defer serving.Done()
	var answer strings.Builder
	req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "x"}}, MaxTokens: 32}
	return serving.Chat(s.t.Context(), req, func(c backends.Chunk) error {
		answer.WriteString(c.Text)
		return nil
	})
}

// TestGapInVain has one thing wrong with the next release per row: what served before serves again, or on.
func TestGapInVain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		publish func(*site)
		stops   bool // the old release, for a moment
		want    string
	}{
		{"its weights are altered", func(s *site) {
			path := s.writeModel("flipped.gguf", tinygguf.Config{Sentence: "I was altered."})
			flip(s.t, path, 1000)
			s.release("flipped.gguf", 2, nil)
		}, false, "flipped.gguf"},
		{"it answers something else", func(s *site) {
			s.release("b.gguf", 2, func(d *trust.Descriptor) { d.Warmup = trust.Warmup{Prompt: "Who?", Contains: "version C"} })
		}, true, "warm up"},
		{"it would not fit alone", func(s *site) {
			s.writeModel("large.gguf", tinygguf.Config{Sentence: "I am large.", Layers: 24})
			s.release("large.gguf", 2, nil)
		}, false, "do not fit in memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, a, dir := newGapSite(t)
			tt.publish(s)
			st := s.until("why not", func(st catalog.Status) bool { return strings.Contains(st.Error, tt.want) && st.Release != "" })
			if st.Release != string(a) || st.Epoch != 1 {
				t.Errorf("status = %+v, want %s at epoch 1", st, a)
			}
			s.check(a, "I am version A.")
			if stops := slices.Contains(kinds(t, dir), audit.KindStop); stops != tt.stops {
				t.Errorf("the old release stopped: %t, want %t", stops, tt.stops)
			}
		})
	}
}

// TestGapIsWaitedFor only for as long as a request's own time.
func TestGapIsWaitedFor(t *testing.T) {
	s := newWorld(t)
	stage := newStage()
	s.backend = stage.backend
	s.start(room)
	a := s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- nil
	s.untilServes(a)
	b := s.release("b.gguf", 2, nil)
	starting := stage.next(t) // in the gap
	impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.cat.Acquire(impatient, "chat"); !errors.Is(err, catalog.ErrNotServing) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire in a gap = %v, want %v", err, catalog.ErrNotServing)
	}
	got := make(chan statement.ID)
	go func() {
		serving, err := s.cat.Acquire(t.Context(), "chat")
		if err != nil {
			t.Error(err)
			close(got)
			return
		}
		defer serving.Done()
		got <- serving.ID()
	}()
	s.until("one waits", func(st catalog.Status) bool { return st.Waiting == 1 && st.State == catalog.StateLoading })
	starting.verdict <- nil
	if id := <-got; id != b {
		t.Errorf("after the gap %s answers, want %s", id, b)
	}
}
