package receipt

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// checkStore verifies what holds after each step: the bounds, and that the books agree.
func checkStore(t *testing.T, s *store) {
	t.Helper()
	kept, pending := 0, 0
	var size int64
	for caller, sh := range s.shelves {
		if sh.kept.Len() > maxKeptOfCaller || sh.pending > maxPendingOfCaller || sh.kept.Len()+sh.pending == 0 {
			t.Fatalf("%s has %d receipts and %d pending", caller, sh.kept.Len(), sh.pending)
		}
		kept, pending = kept+sh.kept.Len(), pending+sh.pending
	}
	for e := s.kept.Front(); e != nil; e = e.Next() {
		size += e.Value.(*entry).size
	}
	if kept != s.kept.Len() || pending != s.pending || kept+pending != len(s.entries) || size != s.bytes {
		t.Fatalf("%d kept, %d pending, %d bytes; the store counts %d, %d of %d entries, %d", kept, pending, size, s.kept.Len(), s.pending, len(s.entries), s.bytes)
	}
	if kept > maxKept || pending > maxPending || size > maxBytes {
		t.Fatalf("%d kept, %d pending, %d bytes: more than may be", kept, pending, size)
	}
}

// keep puts n receipts of a caller into a store.
func keep(t *testing.T, s *store, caller string, from, n int, d *Document) {
	t.Helper()
	for i := range n {
		e, err := s.begin(caller, fmt.Sprint(caller, from+i))
		if err != nil {
			t.Fatal(err)
		}
		s.end(e, d, nil)
	}
	checkStore(t, s)
}

func TestStoreOfOneCaller(t *testing.T) {
	now := time.Unix(0, 0)
	s := newStore(func() time.Time { return now })
	keep(t, s, "a", 0, maxKeptOfCaller+1, &Document{})
	for _, tt := range []struct {
		caller, id string
		want       bool
	}{{"a", "a0", false}, {"a", "a1", true}, {"b", "a1", false}, {"a", fmt.Sprint("a", maxKeptOfCaller), true}} {
		if got := s.get(tt.caller, tt.id) != nil; got != tt.want {
			t.Errorf("get(%s, %s) = %v, want %v", tt.caller, tt.id, got, tt.want)
		}
	}
	now = now.Add(maxAge - 1)
	if s.get("a", "a1") == nil {
		t.Error("it is gone before its time")
	}
	now = now.Add(1)
	if s.get("a", "a1") != nil {
		t.Error("it is there after its time")
	}
	checkStore(t, s)
	if len(s.shelves) != 0 {
		t.Errorf("%d callers are remembered, of whom there is nothing", len(s.shelves))
	}
}

// TestStoreOfAll: when all is full, who has the most loses the oldest.
func TestStoreOfAll(t *testing.T) {
	s := newStore(time.Now)
	keep(t, s, "small", 0, 1, &Document{})
	for i := range maxKept / maxKeptOfCaller {
		keep(t, s, fmt.Sprint("big", i, "-"), 0, maxKeptOfCaller, &Document{})
	}
	keep(t, s, "small", 1, 1, &Document{})
	if s.get("small", "small0") == nil || s.get("small", "small1") == nil {
		t.Error("the caller with the fewest lost one")
	}
	large := &Document{Receipt: make(jsontext.Value, maxBytes/4)}
	for i := range 6 {
		keep(t, s, "large", i, 1, large)
	}
	if s.get("large", "large5") == nil || s.get("large", "large0") != nil || s.get("small", "small0") == nil {
		t.Error("what is too large did not make room by itself")
	}
}

func TestStorePending(t *testing.T) {
	s := newStore(time.Now)
	full := func(caller string, n int) (last *entry) {
		t.Helper()
		for i := range n {
			e, err := s.begin(caller, fmt.Sprint(caller, i))
			if err != nil {
				t.Fatal(err)
			}
			last = e
		}
		checkStore(t, s)
		if _, err := s.begin(caller, "more"); !errors.Is(err, ErrFull) {
			t.Errorf("begin = %v with %d pending, want %v", err, n, ErrFull)
		}
		return last
	}
	var last *entry
	for i := range maxPending / maxPendingOfCaller {
		last = full(fmt.Sprint("caller", i, "-"), maxPendingOfCaller)
	}
	if _, err := s.begin("another", "0"); !errors.Is(err, ErrFull) {
		t.Errorf("begin = %v with %d pending, want %v", err, maxPending, ErrFull)
	}
	s.end(last, nil, ErrNone)
	if _, err := s.begin("another", "0"); err != nil {
		t.Errorf("begin = %v when one has ended", err)
	}
	checkStore(t, s)
}

// TestFetchGivesUp: a receipt that is not recorded in time is to be asked for again.
func TestFetchGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &Issuer{store: newStore(time.Now)}
		if _, err := i.store.begin("a", "0"); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := i.Fetch(context.Background(), "a", "0"); !errors.Is(err, ErrNotReady) || time.Since(begun) != fetchWait {
			t.Errorf("Fetch = %v after %v, want %v after %v", err, time.Since(begun), ErrNotReady, fetchWait)
		}
	})
}
