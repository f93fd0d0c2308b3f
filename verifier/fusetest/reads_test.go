package fusetest_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/fusetest"
)

// Each read comes to the file whole, as far as it is at most 1 MiB, whether it goes past the page cache by O_DIRECT or not.
func TestRequests(t *testing.T) {
	for name, flags := range map[string]int{"direct": unix.O_DIRECT, "not direct": 0} {
		t.Run(name, func(t *testing.T) {
			f := fusetest.New(6<<30, fusetest.Offsets)
			var mu sync.Mutex
			var asked []int64
			f.OnRead(func(off int64, n int) {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, off, int64(n))
			})
			fd := put(t, f, flags)
			p := aligned(t, 4*mib)
			for _, off := range []int64{5 << 30, 0} { // beyond what 32 bits hold
				if n, err := pread(fd, p, off); n != len(p) || err != nil {
					t.Fatalf("pread = %d, %v, want %d", n, err, len(p))
				}
				checkOffsets(t, p, off)
			}
			if f.LargestRequest() != mib || f.Requests() != 8 || f.BytesRead() != 8*mib || len(asked) != 16 || asked[0] != 5<<30 || asked[1] != mib {
				t.Errorf("%d requests of at most %d bytes for %d: %v; want 1 MiB each", f.Requests(), f.LargestRequest(), f.BytesRead(), asked)
			}
			if f.MaxReads() != 1 || f.MinReads() != 0 {
				t.Errorf("each byte was read %d to %d times, want 0 to 1", f.MinReads(), f.MaxReads())
			}
		})
	}
}

// What the kernel keeps is not asked for again, and O_DIRECT goes past that.
func TestCached(t *testing.T) {
	f := fusetest.New(mib+3, fusetest.Offsets)
	f.SetCached(true)
	fd := put(t, f, 0)
	p := make([]byte, 2*mib)
	for range 2 {
		if n, err := io.ReadFull(io.NewSectionReader(preader(fd), 0, 2*mib), p); n != mib+3 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("reading all = %d, %v, want %d", n, err, mib+3)
		}
		checkOffsets(t, p[:mib+3], 0)
		if f.BytesRead() != mib+3 || f.MaxReads() != 1 || f.MinReads() != 1 {
			t.Errorf("%d bytes were read, each %d to %d times, want each once", f.BytesRead(), f.MinReads(), f.MaxReads())
		}
	}
	direct := open(t, fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_DIRECT)
	q := aligned(t, mib)
	if n, err := pread(direct, q, 0); n != mib || err != nil {
		t.Fatalf("pread = %d, %v, want %d", n, err, mib)
	}
	checkOffsets(t, q, 0)
	if f.MaxReads() != 2 || f.Opens() != 2 {
		t.Errorf("opened %d times and read %d times, want twice", f.Opens(), f.MaxReads())
	}
}

type preader int

func (fd preader) ReadAt(p []byte, off int64) (int, error) {
	n, err := pread(int(fd), p, off)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func TestCounts(t *testing.T) {
	f := fusetest.New(100, fusetest.Offsets)
	fd := put(t, f, 0)
	for _, step := range []struct{ off, n, least, most int }{
		{0, 0, 0, 0}, {0, 50, 0, 1}, {60, 40, 0, 1}, {50, 10, 1, 1}, {99, 1, 1, 2}, {100, 50, 1, 2}, {0, 100, 2, 3}, {10, 1, 2, 3}, {98, 2, 2, 4},
	} {
		if _, err := pread(fd, make([]byte, step.n), int64(step.off)); err != nil {
			t.Fatal(err)
		}
		if f.MinReads() != step.least || f.MaxReads() != step.most {
			t.Errorf("after %d bytes from %d on each was read %d to %d times, want %d to %d", step.n, step.off, f.MinReads(), f.MaxReads(), step.least, step.most)
		}
	}
	if f.Resize(101); f.MinReads() != 0 {
		t.Errorf("a byte that is new was read %d times", f.MinReads())
	}
	f.Resize(1000)
	if _, err := pread(fd, make([]byte, 10), 500); err != nil {
		t.Fatal(err)
	}
	if f.Resize(100); f.MinReads() != 2 || f.MaxReads() != 4 {
		t.Errorf("with bytes that are gone each was read %d to %d times, want 2 to 4", f.MinReads(), f.MaxReads())
	}
}

func TestGate(t *testing.T) {
	f := fusetest.New(mib, fusetest.Offsets)
	gate, waiting := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.OnRead(func(int64, int) { once.Do(func() { close(waiting) }) })
	f.SetGate(gate)
	fd := put(t, f, 0)
	read := make(chan error)
	go func() {
		_, err := pread(fd, make([]byte, 10), 0)
		read <- err
	}()
	<-waiting
	if f.BytesRead() != 0 {
		t.Error("a read did not wait for its gate")
	}
	close(gate)
	if err := <-read; err != nil || f.BytesRead() != 10 {
		t.Errorf("pread = %v after %d bytes, want 10", err, f.BytesRead())
	}
}

// A process that is killed does not wait for a gate.
func TestGateInterrupted(t *testing.T) {
	f := fusetest.New(mib, fusetest.Offsets)
	waiting := make(chan struct{})
	var once sync.Once
	f.OnRead(func(int64, int) { once.Do(func() { close(waiting) }) })
	f.SetGate(make(chan struct{}))
	dir := fusetest.Mount(t)
	dir.Put("weights", f)
	cmd := exec.CommandContext(t.Context(), "cat", dir.Path("weights"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-waiting
	cmd.Process.Kill()
	if err := cmd.Wait(); err == nil || f.BytesRead() != 0 {
		t.Errorf("cat = %v after %d bytes, want it killed before the first", err, f.BytesRead())
	}
}

// A file that takes the place of another leaves that to those who have it open.
func TestPutAgain(t *testing.T) {
	dir := fusetest.Mount(t)
	dir.Put("weights", fusetest.Bytes([]byte("first")))
	fd := open(t, dir.Path("weights"), 0)
	dir.Put("weights", fusetest.Bytes([]byte("second")))
	p := make([]byte, 10)
	if n, err := pread(fd, p, 0); string(p[:n]) != "first" || err != nil {
		t.Errorf("the open file has %q, %v", p[:n], err)
	}
	if got, err := os.ReadFile(dir.Path("weights")); string(got) != "second" || err != nil {
		t.Errorf("the file of that name has %q, %v", got, err)
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &a), unix.Stat(dir.Path("weights"), &b)); err != nil || a.Ino == b.Ino || a.Size != 5 || b.Size != 6 {
		t.Errorf("%v: inode %d with %d bytes, then %d with %d", err, a.Ino, a.Size, b.Ino, b.Size)
	}
}

// Readers and the script don't get in each other's way, nor in that of processes that are started meanwhile.
func TestConcurrently(t *testing.T) {
	f := fusetest.New(16*mib, fusetest.Offsets)
	dir := fusetest.Mount(t)
	dir.Put("weights", f)
	done := make(chan struct{})
	var scripts, readers sync.WaitGroup
	scripts.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			f.Resize(int64(16+i%2) * mib)
			f.Replace(fusetest.Offsets)
			f.OnRead(func(int64, int) {})
			f.After(1, func() { f.SetShort(0) })
			f.Fail(32*mib, 1, unix.EIO)
			f.Heal()
			_, _ = f.MaxReads(), f.MinReads()
			dir.Put("other", f)
		}
	})
	for i := range 4 {
		readers.Go(func() {
			g, err := os.Open(dir.Path("weights"))
			if err != nil {
				t.Error(err)
				return
			}
			defer g.Close()
			p := make([]byte, mib)
			for off := int64(i) * mib; off < 16*mib; off += 4 * mib {
				if n, err := g.ReadAt(p, off); n != mib || err != nil {
					t.Errorf("ReadAt = %d, %v", n, err)
				}
				checkOffsets(t, p, off)
				runtime.GC()
			}
			if err := exec.CommandContext(t.Context(), "true").Run(); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
	close(done)
	scripts.Wait()
	if f.BytesRead() != 16*mib || f.MaxReads() != 1 || f.Opens() != 4 {
		t.Errorf("%d bytes were read, each at most %d times, after %d opens", f.BytesRead(), f.MaxReads(), f.Opens())
	}
}
