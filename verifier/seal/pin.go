package seal

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

// swaps reports whether this system may write sealed memory to a disk, or can't tell.
func swaps() bool {
	swap, err := hostmem.Here.Swap()
	return swap.On || err != nil
}

// pin keeps a memory file from being written to swap for as long as what it returns is mapped. It returns nil if the
// file is empty or this process may not lock so much (RLIMIT_MEMLOCK, CAP_IPC_LOCK).
func pin(f *os.File) []byte {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	if !lockAll(b) {
		unpin(b)
		return nil
	}
	return b
}

// lockAll also brings back and locks what was taken out of the mapping, as moving it into huge pages does.
func lockAll(b []byte) bool { return unix.Mlock(b) == nil }

func unpin(b []byte) {
	if b != nil {
		_ = unix.Munmap(b) // the mapping is ours and whole: it can't fail
	}
}
