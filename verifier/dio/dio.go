// Package dio reads regular files once, as fast as their device gives them.
//
// The one rule: a byte that lies in the page cache is copied from there, every other is read from the device past the
// cache (O_DIRECT), and none is asked for twice. So a model of many gigabytes neither is read a second time nor pushes
// out what others keep in the cache.
//
// Who must know what the device itself holds calls [File.PastCache]: then what lies in the cache is read from the device
// as well, after the kernel has written back what was changed in the cache.
//
// Where direct reads are refused (some file systems have none) the file is read through the cache.
package dio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Align is what offsets, lengths and addresses of reads have to be multiples of to be direct, in bytes. Devices with
// larger sectors are read through the cache.
const Align = 4096

// ErrNotRegular means that there is no file to be read but a directory, pipe, device or socket.
var ErrNotRegular = errors.New("is not a regular file")

// A File reads an opened file. Its methods may be called concurrently, except Close.
type File struct {
	f    *os.File
	size int64

	direct  *os.File    // the same file without the cache; nil if that is refused
	refused atomic.Bool // a direct read was refused although the open was not

	pastCache bool
}

// New returns a File that reads f, which must stay open as long. The caller closes both.
func New(f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	d := &File{f: f, size: info.Size()}
	advice := unix.FADV_RANDOM // only whole blocks that are in the cache are read through it: nothing is to be read ahead
	if d.direct = openDirect(f); d.direct == nil {
		advice = unix.FADV_SEQUENTIAL
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, advice) // only advice
	return d, nil
}

// openDirect opens the file behind f once more, whatever its name leads to now. It returns nil if that can't be.
func openDirect(f *os.File) *os.File {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err == nil && st.Mask&unix.STATX_DIOALIGN != 0 && (st.Dio_offset_align == 0 || st.Dio_offset_align > Align || st.Dio_mem_align > Align) {
		return nil
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// Size returns how many bytes the file had when New was called.
func (d *File) Size() int64 { return d.size }

// Direct reports whether reads go past the page cache.
func (d *File) Direct() bool { return d.direct != nil && !d.refused.Load() }

// PastCache makes reads from now on leave out what lies in the page cache, where reads can be direct. It must not be
// called while anything is read.
func (d *File) PastCache() { d.pastCache = true }

// Close closes what New opened, not the file it was given.
func (d *File) Close() error {
	if d.direct == nil {
		return nil
	}
	return d.direct.Close()
}

// ReadAt implements [io.ReaderAt]. Fewer bytes than asked for come with an error, [io.EOF] at the end of the file.
func (d *File) ReadAt(p []byte, off int64) (n int, err error) {
	if d.Direct() && aligned(p, off) && (d.pastCache || !d.cached(off, int64(len(p)))) {
		n, err = d.readDirect(p, off)
		if n == len(p) || err != nil {
			return n, err
		}
		// A short read is the end of the file, or the file system's whim: what follows tells.
	} else if !d.Direct() && len(p) > Align {
		_ = unix.Fadvise(int(d.f.Fd()), off, int64(len(p)), unix.FADV_WILLNEED) // only advice: ask for all of it at once
	}
	m, err := d.f.ReadAt(p[n:], off+int64(n))
	return n + m, err
}

func aligned(p []byte, off int64) bool {
	return len(p) > 0 && uintptr(unsafe.Pointer(&p[0]))%Align == 0 && len(p)%Align == 0 && off%Align == 0
}

// cached reports whether all of a range is in the page cache. Where the kernel does not tell (before 6.5, or of the
// files of others) nothing is.
func (d *File) cached(off, n int64) bool {
	n = min(n, d.size-off)
	if n <= 0 {
		return false
	}
	var st unix.Cachestat_t
	page := int64(os.Getpagesize())
	err := unix.Cachestat(uint(d.f.Fd()), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &st, 0)
	return err == nil && st.Cache >= uint64((n+page-1)/page)
}

// readDirect reads until p is full, a read is shorter than a sector, or nothing more comes.
func (d *File) readDirect(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(int(d.direct.Fd()), p[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case n == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)):
			d.refused.Store(true)
			return 0, nil
		case err != nil:
			return n, &os.PathError{Op: "read", Path: d.f.Name(), Err: err}
		case m == 0:
			return n, io.EOF
		}
		if n += m; m%Align != 0 {
			return n, nil
		}
	}
	return n, nil
}
