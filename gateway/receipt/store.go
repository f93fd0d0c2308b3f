package receipt

import (
	"container/list"
	"sync"
	"time"
)

// A store keeps receipts for their callers to fetch, in memory and within bounds.
type store struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[string]*entry // by id: those that are pending, and those that are kept
	shelves map[string]*shelf // by caller, of whom there is an entry
	kept    *list.List        // of all callers, in the order in which they were recorded
	pending int
	bytes   int64
}

// A shelf is what is kept for one caller.
type shelf struct {
	pending int
	kept    *list.List // in the order in which they were recorded
	bytes   int64
}

// An entry is one receipt.
type entry struct {
	caller, id string
	done       chan struct{} // closed when the fields below are set

	document *Document // nil: there is none
	err      error     // why

	// Of the store.
	at              time.Time
	size            int64
	inAll, inCaller *list.Element
}

func newStore(now func() time.Time) *store {
	return &store{now: now, entries: map[string]*entry{}, shelves: map[string]*shelf{}, kept: list.New()}
}

// begin makes room for a receipt that is to come.
func (s *store) begin(caller, id string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shelves[caller]
	if sh == nil {
		sh = &shelf{kept: list.New()}
	}
	if s.pending >= maxPending || sh.pending >= maxPendingOfCaller {
		return nil, ErrFull
	}
	e := &entry{caller: caller, id: id, done: make(chan struct{})}
	s.shelves[caller], s.entries[id] = sh, e
	sh.pending++
	s.pending++
	return e, nil
}

// end keeps what became of a receipt.
func (s *store) end(e *entry, document *Document, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shelves[e.caller]
	sh.pending--
	s.pending--
	e.document, e.err, e.at, e.size = document, err, s.now(), document.size()
	e.inAll, e.inCaller = s.kept.PushBack(e), sh.kept.PushBack(e)
	s.bytes += e.size
	sh.bytes += e.size
	close(e.done)
	s.expire()
	for sh.kept.Len() > maxKeptOfCaller {
		s.drop(sh.kept.Front().Value.(*entry))
	}
	for s.kept.Len() > maxKept {
		s.drop(s.most(func(sh *shelf) int64 { return int64(sh.kept.Len()) }).kept.Front().Value.(*entry))
	}
	for s.bytes > maxBytes {
		s.drop(s.most(func(sh *shelf) int64 { return sh.bytes }).kept.Front().Value.(*entry))
	}
}

// get returns a caller's receipt, nil if it has none of that id.
func (s *store) get(caller, id string) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if e := s.entries[id]; e != nil && e.caller == caller {
		return e
	}
	return nil
}

// expire drops what is too old.
func (s *store) expire() {
	for first := s.kept.Front(); first != nil; first = s.kept.Front() {
		e := first.Value.(*entry)
		if s.now().Sub(e.at) < maxAge {
			return
		}
		s.drop(e)
	}
}

// most returns the shelf with the most on it, so that nobody can take away what others have.
func (s *store) most(of func(*shelf) int64) *shelf {
	var most *shelf
	for _, sh := range s.shelves {
		if most == nil || of(sh) > of(most) {
			most = sh
		}
	}
	return most
}

func (s *store) drop(e *entry) {
	sh := s.shelves[e.caller]
	s.kept.Remove(e.inAll)
	sh.kept.Remove(e.inCaller)
	s.bytes -= e.size
	sh.bytes -= e.size
	delete(s.entries, e.id)
	if sh.pending == 0 && sh.kept.Len() == 0 {
		delete(s.shelves, e.caller)
	}
}
