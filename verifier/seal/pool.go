package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
	"github.com/weighbridge/weighbridge/verifier/oms"
)

// ErrTooLarge means that the weights need more memory than can be had: free some, or raise the limit that the text names.
var ErrTooLarge = errors.New("weights do not fit in memory")

// A Pool is the memory for sealed weights, up to a limit. What is sealed stays after its last holder has let go, so that
// whoever needs the same weights again reads nothing, until the room is needed: then what was not used for longest goes
// first, and what is held never. It may be used concurrently; make one with [NewPool].
type Pool struct {
	limit     int64
	pins      bool // memory is kept from swap
	available func() (hostmem.Room, error)
	loading   chan struct{} // held by the one load that runs: two would only share a disk, and each other's room

	mu     sync.Mutex
	used   int64 // bytes that are sealed, or promised to the load that runs
	held   map[key]*held
	clock  int64 // counts releases
	closed bool  // nothing stays warm any more
}

// A key stands for a manifest's files, with their names: a root does not cover those.
type key [sha256.Size]byte

func keyOf(m *oms.Manifest) key {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", m.Algorithm())
	for _, f := range m.Files() {
		fmt.Fprintf(h, "%q\n", f.Name)
		for _, p := range f.Parts {
			fmt.Fprintf(h, " %d %d %x\n", p.Start, p.End, p.Sum)
		}
	}
	return key(h.Sum(nil))
}

// NewPool returns an empty pool for at most limit bytes of sealed weights.
func NewPool(limit int64) *Pool {
	return &Pool{limit: limit, pins: swaps(), available: hostmem.Here.Available, loading: make(chan struct{}, 1), held: map[key]*held{}}
}

// Usage is how a pool's memory is used, in bytes.
type Usage struct {
	Limit, InUse, Warm int64 // Warm is held by nobody, and goes when room is needed
	Pinned             int64 // of InUse and Warm, kept from swap; 0 if there is no swap
}

// Usage returns what the pool holds now.
func (p *Pool) Usage() Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := Usage{Limit: p.limit, InUse: p.used}
	for _, h := range p.held {
		if h.users == 0 {
			u.Warm += h.size
		}
		for _, f := range h.files {
			u.Pinned += f.pinned.bytes()
		}
	}
	u.InUse -= u.Warm
	return u
}

// Get returns the manifest's weights if they are sealed already: nothing is read or hashed. Otherwise it returns nil.
func (p *Pool) Get(m *oms.Manifest) *Weights {
	k := keyOf(m)
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[k]
	if h == nil {
		return nil
	}
	h.users++
	h.discarded = false
	return &Weights{held: h}
}

// Close gives back all memory that nobody holds, now and whenever a last holder lets go. What is held stays valid.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for h := p.idle(); h != nil; h = p.idle() {
		errs = append(errs, p.evict(h))
	}
	return errors.Join(errs...)
}

func (p *Pool) share(h *held) *Weights {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.users++
	return &Weights{held: h}
}

func (p *Pool) release(h *held, discard bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	h.lastUsed = p.clock
	h.discarded = h.discarded || discard
	if h.users--; h.users > 0 {
		return nil
	}
	switch {
	case h.level != Sealed:
		return h.close() // another load must measure anew
	case p.closed, h.discarded:
		return p.evict(h)
	}
	return nil
}

// add makes the files known, with one holder.
func (p *Pool) add(h *held) *Weights {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.users = 1
	if h.level == Sealed {
		p.held[h.key] = h
	}
	return &Weights{held: h}
}

// idle returns what was not used for longest, nil if all is held. It needs mu.
func (p *Pool) idle() (oldest *held) {
	for _, h := range p.held {
		if h.users == 0 && (oldest == nil || h.lastUsed < oldest.lastUsed) {
			oldest = h
		}
	}
	return oldest
}

// evict needs mu.
func (p *Pool) evict(h *held) error {
	delete(p.held, h.key)
	p.used -= h.size
	return h.close()
}

func (h *held) close() error {
	var errs []error
	for _, f := range h.files {
		f.pinned.close()
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// lock waits until no other load runs.
func (p *Pool) lock(ctx context.Context) error {
	select {
	case p.loading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *Pool) unlock() { <-p.loading }

// reserve takes n bytes out of the limit, after looking whether the machine has them too. Warm memory goes as needed,
// but only if that is enough.
func (p *Pool) reserve(n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var warm int64
	for _, h := range p.held {
		if h.users == 0 {
			warm += h.size
		}
	}
	if free := p.limit - (p.used - warm); n > free {
		return fmt.Errorf("%w: they need %d bytes, %d of the %d that weights may take are free", ErrTooLarge, n, max(free, 0), p.limit)
	}
	if room, err := p.available(); err != nil {
		return fmt.Errorf("find out how much memory can be had: %w", err)
	} else if n > room.Bytes+warm-ownMemory {
		return fmt.Errorf("%w: they need %d bytes, %d can be had: %s", ErrTooLarge, n, max(room.Bytes+warm-ownMemory, 0), room.Limit)
	}
	for p.used+n > p.limit || p.short(n) {
		h := p.idle()
		if h == nil {
			break
		}
		if err := p.evict(h); err != nil {
			return fmt.Errorf("give back sealed memory: %w", err)
		}
	}
	p.used += n
	return nil
}

// headroom is what the machine should have free beyond what is in use, so that nothing has to make room in a hurry.
const headroom = 256 << 20 // bytes

// Short reports whether the machine has so little memory left that what is only kept in case it is needed should go. What
// nobody holds goes first, for that.
func (p *Pool) Short() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.short(headroom) {
		h := p.idle()
		if h == nil || p.evict(h) != nil {
			return true
		}
	}
	return false
}

// short reports whether the machine itself has no n bytes.
func (p *Pool) short(n int64) bool {
	room, err := p.available()
	return err == nil && n > room.Bytes-ownMemory
}

func (p *Pool) unreserve(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= n
}
