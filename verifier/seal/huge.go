package seal

import (
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Huge pages make memory several times cheaper to fill, and to map by a runtime. Where they can't be had small ones do.
const (
	// hugePage is the size of a huge page on the processors that have one of this kind. On others asking fails.
	hugePage = 2 << 20
	// hugeExtent is how many bytes are asked for at once: asking has a fixed cost, and waiting for it a price.
	hugeExtent = 16 << 20
	// maxHugeFailures is how often a file's memory may fail to be huge, or take longer than hugePatience, before no more
	// is asked for: memory that is full or in pieces would have to be compacted, which takes longer than it saves.
	maxHugeFailures = 4
)

// hugePatience is what an extent may take. Tests shorten it.
var hugePatience = 5 * time.Second

// HugePages reports whether sealed memory gets huge pages on this machine, which is found out once, by trying.
var HugePages = sync.OnceValue(func() bool {
	f, err := create("probe", false)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Ftruncate(int(f.Fd()), hugePage) == nil && enlarge(f, 0, hugePage)
})

// enlarge makes the kernel put huge pages under a range of a memory file that begins with one, as far as whole ones fit.
// It reports whether it did. It changes nothing that is in the memory: blocks may have landed there already.
//
// What is written by write(2) gets small pages, unless the whole machine is set to give huge ones to all shared memory.
// MADV_COLLAPSE (Linux 6.1) turns a range that has any page at all into huge pages, whatever the machine's setting but
// "deny". The mapping for it can only read, and is gone when this returns.
func enlarge(f *os.File, off, n int64) bool {
	n -= n % hugePage
	if n <= 0 {
		return true // too small for any
	}
	// Huge pages need an address that is a multiple of their size: reserve a page more than is needed and map over it.
	reserved := uintptr(n) + hugePage
	area, err := unix.MmapPtr(-1, 0, nil, reserved, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return false
	}
	defer func() { _ = unix.MunmapPtr(area, reserved) }() // the area is ours and whole: it can't fail
	at := unsafe.Add(area, -uintptr(area)%hugePage)
	p, err := unix.MmapPtr(int(f.Fd()), off, at, uintptr(n), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		return false
	}
	b := unsafe.Slice((*byte)(p), n)
	for first := range n / hugePage { // one small page each, for there to be something to collapse
		small := b[first*hugePage:][:os.Getpagesize()]
		if unix.Madvise(small, unix.MADV_POPULATE_READ) != nil {
			return false
		}
	}
	return unix.Madvise(b, unix.MADV_COLLAPSE) == nil
}
