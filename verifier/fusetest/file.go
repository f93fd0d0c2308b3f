package fusetest

import (
	"context"
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Content fills p with the bytes of a file from off on, as many as p has. It may be called concurrently.
type Content func(p []byte, off int64)

// Offsets is the [Content] of which every eight bytes hold their own offset, so that none can be taken for another.
func Offsets(p []byte, off int64) {
	var word [8]byte
	for ; off&7 == 0 && len(p) >= 8; p, off = p[8:], off+8 {
		binary.LittleEndian.PutUint64(p, uint64(off))
	}
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(word[:], uint64(off&^7))
		n := copy(p, word[off&7:])
		p, off = p[n:], off+int64(n)
	}
}

// Direct says what a file makes of O_DIRECT.
type Direct int

// The kernel itself lets such reads of FUSE begin and end anywhere.
const (
	DirectWorks     Direct = iota // for any read
	DirectAligned                 // as on a disk: reads that don't begin and end at a multiple of 512 fail with EINVAL
	DirectReadsFail               // all reads through a descriptor that was opened with it fail with EINVAL
	DirectOpenFails               // with EINVAL, as where the file system knows no O_DIRECT
)

// A File is what its methods make of it. They may be called at any time and concurrently, also while it is read.
type File struct {
	mu sync.Mutex

	// What it is.
	content  Content
	size     int64
	reported int64
	modified time.Time

	// What it does.
	direct  Direct
	cached  bool
	failing []failure
	short   int
	gate    <-chan struct{}
	onRead  func(off int64, n int)
	steps   []step

	// What was done with it.
	opens    int
	requests int
	largest  int
	bytes    int64
	reads    spans
}

// A failure is a range that can't be read.
type failure struct {
	start, end int64
	errno      syscall.Errno
}

// A step is what happens once so many bytes were read.
type step struct {
	after int64
	do    func()
}

// New returns a file of that size. It behaves well until it is told otherwise.
func New(size int64, content Content) *File {
	return &File{content: content, size: size, reported: size, modified: time.Now()}
}

// Bytes returns a file that holds b, which must not be changed any more. What it may grow by are zeros.
func Bytes(b []byte) *File {
	return New(int64(len(b)), func(p []byte, off int64) {
		n := 0
		if off < int64(len(b)) {
			n = copy(p, b[off:])
		}
		clear(p[n:])
	})
}

// set changes the file.
func (f *File) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Resize makes the file shrink or grow, as if it were truncated or written to.
func (f *File) Resize(size int64) {
	f.set(func() { f.size, f.reported, f.modified = size, size, time.Now() })
}

// Report makes the file claim another size than it has, until it is resized.
func (f *File) Report(size int64) { f.set(func() { f.reported = size }) }

// Replace makes the file hold something else from now on, at the same size.
func (f *File) Replace(content Content) {
	f.set(func() { f.content, f.modified = content, time.Now() })
}

// SetModified sets when the file says it was last changed: who replaces content and then sets this back does so unseen.
func (f *File) SetModified(at time.Time) { f.set(func() { f.modified = at }) }

// SetDirect says what the file makes of O_DIRECT.
func (f *File) SetDirect(d Direct) { f.set(func() { f.direct = d }) }

// SetCached lets the kernel keep what it reads, for those who open the file from now on. It then reads ahead, asks for
// whole pages, and asks for nothing that it has. Without, each read comes here; what a reader has the kernel read ahead
// (POSIX_FADV_WILLNEED) comes here too, and is then read again.
func (f *File) SetCached(cached bool) { f.set(func() { f.cached = cached }) }

// Fail makes each read fail that touches the n bytes from off on, beside what fails already.
func (f *File) Fail(off, n int64, errno syscall.Errno) {
	f.set(func() { f.failing = append(f.failing, failure{off, off + n, errno}) })
}

// Heal makes nothing fail any more.
func (f *File) Heal() { f.set(func() { f.failing = nil }) }

// SetShort makes each read return at most n bytes; 0 stands for as many as it asks for. It is for files that are not
// cached: of others the kernel takes a short read for the end.
func (f *File) SetShort(n int) { f.set(func() { f.short = n }) }

// SetGate makes all reads wait that come from now on, until gate is closed. The kernel interrupts one whose thread gets a
// signal: it then fails with EINTR, which the runtime's own signals may cause too. A nil gate is open.
func (f *File) SetGate(gate <-chan struct{}) { f.set(func() { f.gate = gate }) }

// OnRead has hook called before each read, with what the kernel asks for. It may be called concurrently, may change the
// file, also for that read, and must not end the test.
func (f *File) OnRead(hook func(off int64, n int)) { f.set(func() { f.onRead = hook }) }

// After has do called once n bytes were read in all, before the read that completes them returns. It may change the file,
// and must not end the test. The race detector does not see that the read returns later: share variables under a lock.
func (f *File) After(n int64, do func()) { f.set(func() { f.steps = append(f.steps, step{n, do}) }) }

func (f *File) stat() (size int64, modified time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reported, f.modified
}

// open returns whether the kernel may cache what is read.
func (f *File) open(direct bool) (cached bool, errno syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if direct && f.direct == DirectOpenFails {
		return false, unix.EINVAL
	}
	f.opens++
	return f.cached, 0
}

// read serves one request of the kernel.
func (f *File) read(ctx context.Context, direct bool, p []byte, off int64) (int, syscall.Errno) {
	if hook := f.arrive(len(p)); hook != nil {
		hook(off, len(p))
	}
	if err := f.wait(ctx); err != nil {
		return 0, unix.EINTR
	}
	n, content, errno := f.find(direct, off, len(p))
	if errno != 0 {
		return 0, errno
	}
	content(p[:n], off)
	for _, do := range f.count(off, n) {
		do()
	}
	return n, 0
}

func (f *File) arrive(n int) (hook func(off int64, n int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	f.largest = max(f.largest, n)
	return f.onRead
}

func (f *File) wait(ctx context.Context) error {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// find returns how many bytes a read gets, and from what.
func (f *File) find(direct bool, off int64, n int) (int, Content, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if direct && (f.direct == DirectReadsFail || f.direct == DirectAligned && (off|int64(n))&511 != 0) {
		return 0, nil, unix.EINVAL
	}
	for _, bad := range f.failing {
		if off < bad.end && off+int64(n) > bad.start {
			return 0, nil, bad.errno
		}
	}
	if f.short > 0 {
		n = min(n, f.short)
	}
	return int(min(int64(n), max(f.size-off, 0))), f.content, 0
}

// count returns the steps that are due.
func (f *File) count(off int64, n int) (due []func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += int64(n)
	f.reads.add(off, int64(n))
	var later []step
	for _, s := range f.steps {
		if s.after <= f.bytes {
			due = append(due, s.do)
		} else {
			later = append(later, s)
		}
	}
	f.steps = later
	return due
}
