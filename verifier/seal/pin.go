package seal

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

// swaps reports whether this system may write sealed memory to a disk, or can't tell.
func swaps() bool {
	swap, err := hostmem.Here.Swap()
	return swap.On || err != nil
}

// A pin keeps a memory file from being written to swap for as long as it is mapped. A nil one keeps nothing.
type pin struct {
	mapped []byte
	lost   atomic.Bool // a part could not be locked again
}

// pinFile returns nil if the file is empty or this process may not lock so much (RLIMIT_MEMLOCK, CAP_IPC_LOCK).
func pinFile(f *os.File) *pin {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	p := &pin{mapped: b}
	if unix.Mlock(b) != nil {
		p.close()
		return nil
	}
	return p
}

// again locks a range once more, whose pages were replaced by others.
func (p *pin) again(off, n int64) {
	if p != nil && unix.Mlock(p.mapped[off:off+n]) != nil {
		p.lost.Store(true)
	}
}

// bytes returns how much is kept from swap, as far as this process knows.
func (p *pin) bytes() int64 {
	if p == nil || p.lost.Load() {
		return 0
	}
	return int64(len(p.mapped))
}

func (p *pin) close() {
	if p != nil {
		_ = unix.Munmap(p.mapped) // the mapping is ours and whole: it can't fail
	}
}
