package digest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is the memory that blocks pass through. It is not the garbage collector's: it is fit for direct reads, and it
// is gone when the check is.
type ring struct {
	area    []byte
	buffers [][]byte
}

func newRing(n int) (*ring, error) {
	// One block more, to begin at a multiple of the block's size: then each can be one huge page.
	area, err := unix.Mmap(-1, 0, (n+1)*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("get memory for reading: mmap: %w", err)
	}
	_ = unix.Madvise(area, unix.MADV_HUGEPAGE) // only faster
	r := &ring{area: area}
	first := -uintptr(unsafe.Pointer(&area[0])) % blockSize
	for i := range n {
		at := int(first) + i*blockSize
		r.buffers = append(r.buffers, area[at:at+blockSize:at+blockSize])
	}
	return r, nil
}

func (r *ring) close() { _ = unix.Munmap(r.area) } // can't fail: the area is ours and whole
