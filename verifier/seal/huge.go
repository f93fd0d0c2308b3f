package seal

import (
	"context"
	"os"
	"runtime"
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
	// maxHugeFailures is how often the extents of a file may fail to be huge, or cost more than maxHugeTime, before no
	// more are asked for while it loads: Enlarge does so once it serves.
	maxHugeFailures = 2
)

// maxHugeTime is what an extent may cost of a processor's time. Where memory is free and present, clearing it takes a
// quarter of this; where it has to be compacted, or handed out by a hypervisor page by page, several times as much, which
// is more than huge pages save. Tests change it.
var maxHugeTime = 12 * time.Millisecond

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

// enlargeInTime is enlarge, and reports also whether that cost no more than maxHugeTime.
func enlargeInTime(f *os.File, off, n int64) bool {
	runtime.LockOSThread() // whose time it is
	defer runtime.UnlockOSThread()
	start := threadTime()
	return enlarge(f, off, n) && threadTime()-start <= maxHugeTime
}

// threadTime returns how long this thread has had a processor.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic("seal: internal error: " + err.Error()) // Linux has this clock
	}
	return time.Duration(t.Nano())
}

// Enlarge moves sealed weights into huge pages, as far as they do not lie there yet and the kernel has some to give, and
// returns how many bytes lie in huge pages then. Nothing changes for those who read the weights meanwhile, but that a
// runtime's next start maps them faster. It leaves a core at least half of its time to others, and ends when ctx does.
func (w *Weights) Enlarge(ctx context.Context) (huge int64) {
	if !w.Valid() || w.Level() != Sealed || !HugePages() {
		return 0
	}
	w, err := w.Share() // they stay until this returns, whoever closes theirs
	if err != nil {
		return 0
	}
	defer w.Close()
	for _, name := range w.Names() {
		f, err := w.Dup(name)
		if err != nil {
			return huge
		}
		huge += enlargeAll(ctx, f, w.held.files[name].pinned)
		f.Close()
	}
	return huge
}

func enlargeAll(ctx context.Context, f *os.File, pinned *pin) (huge int64) {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for off := int64(0); off < info.Size(); off += hugeExtent {
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return huge
		}
		start := time.Now()
		n := min(hugeExtent, info.Size()-off)
		if enlarge(f, off, n) {
			huge += n - n%hugePage
		}
		pinned.again(off, n)
		pause.Reset(time.Since(start))
	}
	return huge
}
