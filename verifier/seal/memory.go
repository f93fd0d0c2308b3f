package seal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// errMemory means that there is no memory for a file, which no other file changes.
var errMemory = errors.New("no memory")

// A memory is a file in memory that is being filled, and not sealed yet.
type memory struct {
	f       *os.File
	size    int64
	room    func(bytes int64) error // asked before so many bytes are taken
	extents []sync.Once             // of hugeExtent bytes each: done when huge pages were asked for
	failed  atomic.Int32            // how often there were none

	// writing is held while the kernel copies: it would let one writer in at a time anyway, and the others would wait for
	// it on a core that hashing needs.
	writing sync.Mutex
}

func newMemory(name string, size int64, room func(int64) error) (*memory, error) {
	f, err := create(name, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMemory, err)
	}
	// The size first: blocks land in any order.
	if err := unix.Ftruncate(int(f.Fd()), size); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errMemory, os.NewSyscallError("ftruncate", err)), f.Close())
	}
	m := &memory{f: f, size: size, room: room}
	if HugePages() {
		m.extents = make([]sync.Once, (size+hugeExtent-1)/hugeExtent)
	}
	return m, nil
}

// WriteAt implements [io.WriterAt].
func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if err := m.room(int64(len(p))); err != nil {
		return 0, err
	}
	if m.extents != nil {
		for extent := off / hugeExtent; extent*hugeExtent < off+int64(len(p)); extent++ {
			m.extents[extent].Do(func() { m.enlarge(extent * hugeExtent) })
		}
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	n, err := m.f.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("%w: %w", errMemory, err)
	}
	return n, nil
}

// enlarge asks for huge pages for the extent at off, unless that failed or cost too much too often.
func (m *memory) enlarge(off int64) {
	if m.failed.Load() >= maxHugeFailures {
		return
	}
	if !enlargeInTime(m.f, off, min(hugeExtent, m.size-off)) {
		m.failed.Add(1)
	}
}

const (
	// ownMemory is what the gateway needs beside sealed weights, for reading and for its requests.
	ownMemory = 128 << 20
	// roomEvery is how many bytes are loaded between two looks at the machine's memory.
	roomEvery = 128 << 20
)

// room refuses memory before the kernel kills somebody for it: others on this machine, or in this memory cgroup, may
// have taken what was there when the load began.
func (l *load) room(n int64) error {
	if before := l.copied.Add(n) - n; before/roomEvery == (before+n)/roomEvery {
		return nil
	}
	room, err := l.pool.available()
	if err != nil {
		return fmt.Errorf("find out how much memory can be had: %w", err)
	}
	if room.Bytes < ownMemory {
		return fmt.Errorf("%w: memory ran short after %d of %d bytes, %d can be had: %s", ErrTooLarge, l.copied.Load(), l.held.size, room.Bytes, room.Limit)
	}
	return nil
}
