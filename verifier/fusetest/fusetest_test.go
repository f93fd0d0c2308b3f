package fusetest_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/fusetest"
)

const mib = 1 << 20

// put mounts a directory with one file and opens that.
func put(t *testing.T, f *fusetest.File, flags int) int {
	t.Helper()
	dir := fusetest.Mount(t)
	dir.Put("weights", f)
	return open(t, dir.Path("weights"), flags)
}

func open(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// aligned returns memory that O_DIRECT takes anywhere.
func aligned(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

// pread is the system call, begun again when a signal of the runtime interrupts it.
func pread(fd int, p []byte, off int64) (n int, err error) {
	for {
		if n, err = unix.Pread(fd, p, off); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// checkOffsets checks that p is what [fusetest.Offsets] has at off.
func checkOffsets(t *testing.T, p []byte, off int64) {
	t.Helper()
	want := make([]byte, len(p))
	fusetest.Offsets(want, off)
	if !bytes.Equal(p, want) {
		t.Errorf("the %d bytes from %d on are others", len(p), off)
	}
}

func TestOffsets(t *testing.T) {
	whole := make([]byte, 64)
	fusetest.Offsets(whole, 0)
	if want := []byte{8, 0, 0, 0, 0, 0, 0, 0, 16}; !bytes.Equal(whole[8:17], want) {
		t.Errorf("the bytes from 8 on are %v, want %v", whole[8:17], want)
	}
	for off := range 20 {
		for n := range 20 {
			part := make([]byte, n)
			if fusetest.Offsets(part, int64(off)); !bytes.Equal(part, whole[off:off+n]) {
				t.Errorf("%d bytes from %d on are %v, want %v", n, off, part, whole[off:off+n])
			}
		}
	}
}

// A read that begins at a multiple of 512 must end at one too.
func TestDirectAlignedEnd(t *testing.T) {
	f := fusetest.New(mib, fusetest.Offsets)
	f.SetDirect(fusetest.DirectAligned)
	if n, err := pread(put(t, f, unix.O_DIRECT), aligned(t, mib)[:511], 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("pread = %d, %v, want EINVAL", n, err)
	}
}

// A file that was told nothing is like any other.
func TestWellBehaved(t *testing.T) {
	dir := fusetest.Mount(t)
	data := []byte(strings.Repeat("weights!", 1<<16) + "tail")
	f := fusetest.Bytes(data)
	dir.Put("weights", f)
	dir.Put("empty", fusetest.Bytes(nil))

	info, err := os.Stat(dir.Path("weights"))
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) || time.Since(info.ModTime()).Abs() > time.Hour {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	if got, err := os.ReadFile(dir.Path("weights")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("ReadFile = %d bytes, %v, want the %d of the file", len(got), err, len(data))
	}
	if f.Opens() != 1 || f.BytesRead() != int64(len(data)) || f.MaxReads() != 1 || f.MinReads() != 1 || f.Requests() < 1 {
		t.Errorf("opened %d times, %d bytes read by %d requests, each %d to %d times; want each once",
			f.Opens(), f.BytesRead(), f.Requests(), f.MinReads(), f.MaxReads())
	}
	if got, err := os.ReadFile(dir.Path("empty")); err != nil || len(got) != 0 {
		t.Errorf("ReadFile of nothing = %q, %v", got, err)
	}
	if _, err := os.Stat(dir.Path("nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of a file that was not put = %v", err)
	}
	entries, err := os.ReadDir(dir.Path(""))
	if err != nil || len(entries) != 2 || entries[0].Name() != "empty" || entries[1].Name() != "weights" {
		t.Errorf("ReadDir = %v, %v, want the two files that were put", entries, err)
	}
	if f, err := os.OpenFile(dir.Path("weights"), os.O_RDWR, 0); err == nil {
		f.Close()
		t.Error("the file can be written")
	}
}

func TestMisbehaved(t *testing.T) {
	const size = 4 * mib
	tests := []struct {
		name   string
		script func(f *fusetest.File)
		flags  int
		off    int64
		want   int // bytes that one read of 1 MiB at off returns
		errno  error
	}{
		{"nothing", func(*fusetest.File) {}, 0, 0, mib, nil},
		{"nothing, direct", func(*fusetest.File) {}, unix.O_DIRECT, mib, mib, nil},
		{"nothing, beyond the end", func(*fusetest.File) {}, 0, size, 0, nil},
		{"shrunk", func(f *fusetest.File) { f.Resize(mib + 5) }, 0, mib, 5, nil},
		{"shrunk, direct", func(f *fusetest.File) { f.Resize(mib + 5) }, unix.O_DIRECT, mib, 5, nil},
		{"shrunk, beyond the end", func(f *fusetest.File) { f.Resize(mib) }, 0, 3 * mib, 0, nil},
		{"grown", func(f *fusetest.File) { f.Resize(2 * size) }, 0, size, mib, nil},
		{"claims to have shrunk", func(f *fusetest.File) { f.Report(0) }, 0, 0, mib, nil},
		{"claims to have grown", func(f *fusetest.File) { f.Report(2 * size) }, 0, size, 0, nil},
		{"fails", func(f *fusetest.File) { f.Fail(mib, 1, unix.EIO) }, 0, mib, 0, unix.EIO},
		{"fails at its end", func(f *fusetest.File) { f.Fail(2*mib-1, mib, unix.ESTALE) }, unix.O_DIRECT, mib, 0, unix.ESTALE},
		{"fails right before", func(f *fusetest.File) { f.Fail(0, mib, unix.EIO) }, 0, mib, mib, nil},
		{"fails right after", func(f *fusetest.File) { f.Fail(2*mib, mib, unix.EIO) }, 0, mib, mib, nil},
		{"fails twice", func(f *fusetest.File) { f.Fail(mib, 1, unix.EIO); f.Fail(0, 1, unix.EIO) }, 0, mib, 0, unix.EIO},
		{"failed", func(f *fusetest.File) { f.Fail(mib, 1, unix.EIO); f.Heal() }, 0, mib, mib, nil},
		{"short reads", func(f *fusetest.File) { f.SetShort(4097) }, 0, 0, 4097, nil},
		{"short reads, direct", func(f *fusetest.File) { f.SetShort(4096) }, unix.O_DIRECT, 0, 4096, nil},
		{"direct reads fail", func(f *fusetest.File) { f.SetDirect(fusetest.DirectReadsFail) }, unix.O_DIRECT, 0, 0, unix.EINVAL},
		{"direct reads fail, not direct", func(f *fusetest.File) { f.SetDirect(fusetest.DirectReadsFail) }, 0, 0, mib, nil},
		{"direct reads are aligned", func(f *fusetest.File) { f.SetDirect(fusetest.DirectAligned) }, unix.O_DIRECT, 512, mib, nil},
		{"direct reads are aligned, this one not", func(f *fusetest.File) { f.SetDirect(fusetest.DirectAligned) }, unix.O_DIRECT, 511, 0, unix.EINVAL},
		{"direct reads are aligned, this is none", func(f *fusetest.File) { f.SetDirect(fusetest.DirectAligned) }, 0, 511, mib, nil},
		{"direct opens fail, not direct", func(f *fusetest.File) { f.SetDirect(fusetest.DirectOpenFails) }, 0, 0, mib, nil},
		{"changes for the very read", func(f *fusetest.File) { f.OnRead(func(off int64, n int) { f.Resize(off + 1) }) }, 0, 0, 1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := fusetest.New(size, fusetest.Offsets)
			tt.script(f)
			fd := put(t, f, tt.flags)
			p := aligned(t, mib)
			n, err := pread(fd, p, tt.off)
			if err != nil {
				n = 0
			}
			if n != tt.want || !errors.Is(err, tt.errno) {
				t.Fatalf("pread = %d, %v, want %d, %v", n, err, tt.want, tt.errno)
			}
			checkOffsets(t, p[:n], tt.off)
			if f.BytesRead() != int64(n) {
				t.Errorf("%d bytes were counted, want %d", f.BytesRead(), n)
			}
		})
	}
}

func TestReplace(t *testing.T) {
	f := fusetest.New(mib, fusetest.Offsets)
	fd := put(t, f, 0)
	f.Replace(func(p []byte, _ int64) { clear(p) })
	p := bytes.Repeat([]byte{1}, 10)
	if n, err := pread(fd, p, 1); n != 10 || err != nil || !bytes.Equal(p, make([]byte, 10)) {
		t.Errorf("pread = %q, %v, want zeros", p[:n], err)
	}
}

// What stat says follows at once, also through a descriptor that is open.
func TestStat(t *testing.T) {
	f := fusetest.New(mib, fusetest.Offsets)
	then := time.Unix(1e9, 12345)
	f.SetModified(then)
	fd := put(t, f, 0)
	check := func(what string, size int64, modified bool) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		same := st.Mtim == unix.NsecToTimespec(then.UnixNano()) && st.Ctim == st.Mtim
		if st.Size != size || same == modified || st.Mode&unix.S_IFMT != unix.S_IFREG {
			t.Errorf("after %s: %d bytes, modified %v, want %d and %v", what, st.Size, !same, size, modified)
		}
	}
	check("nothing", mib, false)
	f.Report(5)
	check("Report", 5, false)
	f.Resize(2 * mib)
	check("Resize", 2*mib, true)
	f.SetModified(then)
	check("SetModified", 2*mib, false)
	f.Replace(fusetest.Offsets)
	check("Replace", 2*mib, true)
}

// A step is done when the bytes were read, and before whoever read them can tell.
func TestAfter(t *testing.T) {
	f := fusetest.New(4*mib, fusetest.Offsets)
	var mu sync.Mutex
	var order []string
	note := func(what string) func() {
		return func() {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, what)
		}
	}
	f.After(2*mib, func() { f.Resize(3*mib + 1); note("cut")() })
	f.After(2*mib-1, note("before"))
	f.After(2*mib+1, note("after"))
	fd := put(t, f, 0)
	p := make([]byte, mib)
	for i, want := range []int{mib, mib, mib, 1, 0} {
		if n, err := pread(fd, p, int64(i)*mib); n != want || err != nil {
			t.Errorf("pread %d = %d, %v, want %d", i, n, err, want)
		}
		mu.Lock()
		if i == 0 && len(order) != 0 || i == 1 && len(order) != 2 {
			t.Errorf("after %d MiB these steps are done: %q", i+1, order)
		}
		mu.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(order, " "); got != "cut before after" { // of those that are due together, the one that was told first
		t.Errorf("the steps were %s", got)
	}
}

func TestDirectOpenFails(t *testing.T) {
	dir, f := fusetest.Mount(t), fusetest.New(mib, fusetest.Offsets)
	f.SetDirect(fusetest.DirectOpenFails)
	dir.Put("weights", f)
	fd, err := unix.Open(dir.Path("weights"), unix.O_RDONLY|unix.O_DIRECT, 0)
	if !errors.Is(err, unix.EINVAL) || f.Opens() != 0 {
		t.Errorf("open = %d, %v after %d opens, want EINVAL", fd, err, f.Opens())
	}
}
