package seal_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/seal"
)

// TestHugePages maps sealed weights as a runtime does and looks at what the kernel mapped them with.
func TestHugePages(t *testing.T) {
	if !seal.HugePages() {
		t.Skip("this kernel gives no huge pages to memory files: they are sealed in small ones")
	}
	const huge = 2 * mib
	content := map[string]string{"w.gguf": strings.Repeat("0123456789abcdef", 35*mib/16)}
	w, err := load(t.Context(), manifest(t, content), newSource(t, content), 64*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f, err := w.Dup("w.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const reserved = 40 * mib
	area, err := unix.MmapPtr(-1, 0, nil, reserved, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.MunmapPtr(area, reserved)
	at := unsafe.Add(area, -uintptr(area)%huge)
	p, err := unix.MmapPtr(int(f.Fd()), 0, at, 35*mib, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		t.Fatal(err)
	}
	if got := unsafe.Slice((*byte)(p), 35*mib); !bytes.Equal(got, []byte(content["w.gguf"])) {
		t.Error("the mapping holds something else than the file")
	}
	if got := mapped(t, p); got < 34*mib {
		t.Errorf("%d bytes are mapped by huge pages, want the 34 MiB that whole ones fit in", got)
	}
}

// Asking for huge pages must never touch what is in the memory already, also when it is given up while other blocks land.
func TestHugePagesGivenUp(t *testing.T) {
	defer seal.WithoutPatience()()
	const size = 200 * mib
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i>>21) | 1 // never zero, which is what new memory holds
	}
	sum := sha256.Sum256(want)
	for range 10 {
		m, err := seal.NewMemory(size)
		if err != nil {
			t.Fatal(err)
		}
		var writers sync.WaitGroup
		blocks := make(chan int, size/(2*mib))
		for _, n := range rand.Perm(size / (2 * mib)) {
			blocks <- n * 2 * mib
		}
		close(blocks)
		for range 16 {
			writers.Go(func() {
				for at := range blocks {
					if _, err := m.WriteAt(want[at:at+2*mib], int64(at)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		got := sha256.New()
		if _, err := io.Copy(got, io.NewSectionReader(m.File(), 0, size)); err != nil {
			t.Fatal(err)
		}
		if [32]byte(got.Sum(nil)) != sum {
			t.Error("the memory does not hold what was written to it")
		}
		m.File().Close()
	}
}

// mapped returns how many bytes of the mapping at p are mapped by huge pages.
func mapped(t *testing.T, p unsafe.Pointer) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, mine, found := strings.Cut(string(data), fmt.Sprintf("\n%x-", uintptr(p)))
	_, field, more := strings.Cut(mine, "ShmemPmdMapped:")
	if !found || !more {
		t.Fatalf("no mapping at %x with its huge pages", uintptr(p))
	}
	kib, err := strconv.ParseInt(strings.Fields(field)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
