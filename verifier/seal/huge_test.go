package seal_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/seal"
)

// TestHugePages looks at what the kernel maps sealed weights with, asked for while they are loaded and afterwards.
func TestHugePages(t *testing.T) {
	if !seal.HugePages() {
		t.Skip("this kernel gives no huge pages to memory files: they are sealed in small ones")
	}
	const size, whole = 35 * mib, 34 * mib
	content := map[string]string{"w.gguf": strings.Repeat("0123456789abcdef", size/16), "tiny.gguf": "x"}
	for _, tt := range []struct {
		name          string
		time          time.Duration // that an extent may take
		least, atMost int64         // in huge pages, after the load
	}{
		{"at once", time.Minute, whole, whole},
		{"afterwards", -1, 0, 32 * mib}, // of extents that are asked for at the same time, all may be huge before the first is found dear
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer seal.WithHugeTime(tt.time)()
			w, err := load(t.Context(), manifest(t, content), newSource(t, content), 64*mib)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if got := hugeBytes(t, w, []byte(content["w.gguf"])); got < tt.least || got > tt.atMost {
				t.Errorf("after the load %d bytes are mapped by huge pages, want %d to %d", got, tt.least, tt.atMost)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if got := w.Enlarge(ended); got != 0 {
				t.Errorf("Enlarge = %d after its context has ended, want 0", got)
			}
			for range 2 {
				if got := w.Enlarge(t.Context()); got != whole {
					t.Errorf("Enlarge = %d, want the %d bytes that whole huge pages fit in", got, whole)
				}
			}
			if got := hugeBytes(t, w, []byte(content["w.gguf"])); got != whole {
				t.Errorf("%d bytes are mapped by huge pages, want %d", got, whole)
			}
			w.Close()
			if got := w.Enlarge(t.Context()); got != 0 {
				t.Errorf("Enlarge = %d of closed weights, want 0", got)
			}
		})
	}
}

// hugeBytes maps w.gguf as a runtime does, compares it with what it should hold, and returns how many bytes of it are
// mapped by huge pages.
func hugeBytes(t *testing.T, w *seal.Weights, want []byte) int64 {
	t.Helper()
	f, err := w.Dup("w.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const huge = 2 * mib
	reserved := uintptr(len(want) + 2*huge)
	area, err := unix.MmapPtr(-1, 0, nil, reserved, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.MunmapPtr(area, reserved)
	at := unsafe.Add(area, -uintptr(area)%huge)
	p, err := unix.MmapPtr(int(f.Fd()), 0, at, uintptr(len(want)), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(unsafe.Slice((*byte)(p), len(want)), want) {
		t.Error("the mapping holds something else than the file")
	}
	return mapped(t, p)
}

// Asking for huge pages must never touch what is in the memory already, also when it is given up while other blocks land.
func TestHugePagesGivenUp(t *testing.T) {
	defer seal.WithHugeTime(-1)()
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
