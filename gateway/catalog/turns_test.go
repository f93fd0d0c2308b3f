package catalog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/fair"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// acquire holds what serves the channel until the test ends, or done is called.
func (s *site) acquire() *catalog.Serving {
	s.t.Helper()
	serving, err := s.cat.Acquire(s.t.Context(), "chat")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(serving.Done)
	return serving
}

// TestTurns lets in as many requests at a time as the release's runtime answers.
func TestTurns(t *testing.T) {
	for slots, edit := range map[int]func(*trust.Descriptor){
		1: nil,
		3: func(d *trust.Descriptor) { d.Runtime.Args["parallel"] = "3" },
	} {
		s := newSite(t, gib)
		s.untilServes(s.release("a.gguf", 1, edit))
		serving := s.acquire()
		for range slots {
			if _, err := serving.Enter(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := serving.Enter(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d slots: Enter = %v with all of them taken, want it to wait", slots, err)
		}
		cancel()
		serving.Done()
		s.stop()
	}
}

// TestTurnsEndWithTheRelease sends away who waits for a release that serves no more, while who has a turn goes on.
func TestTurnsEndWithTheRelease(t *testing.T) {
	s := newSite(t, gib)
	s.untilServes(s.release("a.gguf", 1, nil))
	serving := s.acquire()
	leave, err := serving.Enter(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := serving.Enter(t.Context(), "b")
		waits <- err
	}()
	in := s.inputs()
	in.Channels = nil
	if err := s.cat.Update(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; !errors.Is(err, fair.ErrClosed) {
		t.Errorf("Enter = %v, want ErrClosed once the release is retired", err)
	}
	leave()
}
