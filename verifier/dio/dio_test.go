package dio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/dio"
)

// aligned returns n bytes at an address that direct reads accept.
func aligned(n int) []byte {
	p := make([]byte, n+dio.Align)
	at := -uintptr(unsafe.Pointer(&p[0])) % dio.Align
	return p[at : int(at)+n]
}

func open(t *testing.T, path string) (*os.File, *dio.File) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d, err := dio.New(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return f, d
}

// resident returns how many bytes of a file are in the page cache.
func resident(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0); err != nil {
		t.Skipf("this kernel does not tell what is in the page cache: %v", err)
	}
	return st.Cache * uint64(os.Getpagesize())
}

// TestReadAt reads files of all kinds of lengths, in the cache and out of it, by buffers that can be read directly and
// by ones that can't.
func TestReadAt(t *testing.T) {
	content := make([]byte, 3<<20+777)
	rand.NewChaCha8([32]byte{}).Read(content)
	for _, size := range []int{0, 1, 511, 4095, 4096, 4097, 1 << 20, 2<<20 - 1, 3<<20 + 777} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, content[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		f, d := open(t, path)
		if d.Size() != int64(size) {
			t.Errorf("Size = %d, want %d", d.Size(), size)
		}
		for _, cold := range []bool{false, true} {
			if cold {
				if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil && !errors.Is(err, unix.EBADF) {
					t.Fatal(err)
				}
			}
			for _, n := range []int{4096, 1 << 20} {
				for _, buffer := range [][]byte{aligned(n), aligned(n + 1)[1:]} {
					var got []byte
					for {
						m, err := d.ReadAt(buffer, int64(len(got)))
						got = append(got, buffer[:m]...)
						if errors.Is(err, io.EOF) {
							break
						}
						if err != nil || m < n {
							t.Fatalf("ReadAt of %d bytes = %d, %v", n, m, err)
						}
					}
					if !bytes.Equal(got, content[:size]) {
						t.Errorf("file of %d bytes in pieces of %d: %d bytes are read, and not the file's", size, n, len(got))
					}
				}
			}
		}
	}
}

// What is not in the cache is not put there, what is there is not read from the device.
func TestCacheIsLeftAlone(t *testing.T) {
	const size = 8 << 20
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, d := open(t, path)
	if !d.Direct() {
		t.Skip("this file system has no direct reads")
	}
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	if left := resident(t, f); left != 0 {
		t.Skipf("%d bytes stay in the page cache", left)
	}
	buffer := aligned(1 << 20)
	for off := int64(0); off < size; off += 1 << 20 {
		if _, err := d.ReadAt(buffer, off); err != nil {
			t.Fatal(err)
		}
	}
	if got := resident(t, f); got != 0 {
		t.Errorf("reading brought %d bytes into the page cache", got)
	}
	// Half of the file in the cache: it stays as it is.
	if _, err := io.CopyN(io.Discard, f, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, size/2), 0); err != nil {
		t.Fatal(err)
	}
	half := resident(t, f)
	for off := int64(0); off < size; off += 1 << 20 {
		if _, err := d.ReadAt(buffer, off); err != nil {
			t.Fatal(err)
		}
	}
	if got := resident(t, f); got != half || half < size/2 {
		t.Errorf("%d bytes are in the page cache after reading, %d before", got, half)
	}
}

// fromDevice returns how many bytes this process has had read from devices.
func fromDevice(t *testing.T) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("this kernel does not count what is read: %v", err)
	}
	_, rest, _ := strings.Cut(string(data), "\nread_bytes: ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestPastCache: what lies in the cache comes from the device only for who asks for that, changes that were not written
// back yet among it, and the cache stays as it is.
func TestPastCache(t *testing.T) {
	const size = 4 << 20
	path := filepath.Join(t.TempDir(), "f")
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(content)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, d := open(t, path)
	if !d.Direct() {
		t.Skip("this file system has no direct reads")
	}
	buffer := aligned(size)
	for _, past := range []bool{false, true} {
		if past {
			d.PastCache()
		}
		before, there := fromDevice(t), resident(t, f)
		if _, err := d.ReadAt(buffer, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buffer, content) {
			t.Errorf("past the cache %v: what was read is not what was written", past)
		}
		if read := fromDevice(t) - before; (read >= size) != past {
			t.Errorf("past the cache %v: %d of %d bytes came from the device", past, read, size)
		}
		if got := resident(t, f); got != there {
			t.Errorf("past the cache %v: %d bytes are in the page cache, %d before", past, got, there)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, pipe, os.DevNull} {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dio.New(f); !errors.Is(err, dio.ErrNotRegular) {
			t.Errorf("New(%s) = %v, want ErrNotRegular", path, err)
		}
		f.Close()
	}
}
