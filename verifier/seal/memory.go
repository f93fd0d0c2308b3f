package seal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

// errMemory means that there is no memory for a file, which no other file changes.
var errMemory = errors.New("no memory")

// A memory is a file in memory that is being filled, and not sealed yet.
type memory struct {
	f    *os.File
	huge int64                   // size of a huge page in bytes; 0: none can be had
	room func(bytes int64) error // asked before so many bytes are taken

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
	m := &memory{f: f, room: room}
	if h := hostmem.Here.HugePages(); h.Usable {
		m.huge = h.Size
	}
	return m, nil
}

// WriteAt implements [io.WriterAt].
func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if err := m.room(int64(len(p))); err != nil {
		return 0, err
	}
	if m.huge > 0 && off%m.huge == 0 && int64(len(p))%m.huge == 0 {
		m.populate(off, len(p))
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	n, err := m.f.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("%w: %w", errMemory, err)
	}
	return n, nil
}

// populate makes the kernel take huge pages for a range that is written next. Without a mapping it only takes small
// ones. No mapping is left behind; if anything fails small pages do as well.
func (m *memory) populate(off int64, n int) {
	// Huge pages need an address that is a multiple of their size: reserve a page more than is needed and map over it.
	reserved := uintptr(n) + uintptr(m.huge)
	area, err := unix.MmapPtr(-1, 0, nil, reserved, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return
	}
	defer func() { _ = unix.MunmapPtr(area, reserved) }() // the area is ours and whole: it can't fail
	at := unsafe.Add(area, -uintptr(area)%uintptr(m.huge))
	p, err := unix.MmapPtr(int(m.f.Fd()), off, at, uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		return
	}
	b := unsafe.Slice((*byte)(p), n)
	if unix.Madvise(b, unix.MADV_HUGEPAGE) == nil {
		_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) // fails on kernels before 5.14
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
