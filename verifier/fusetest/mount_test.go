package fusetest_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/fusetest"
)

// leaks are what a test did not clean up.
type leaks struct {
	descriptors []int
	readers     sync.WaitGroup
}

func (l *leaks) open(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.descriptors = append(l.descriptors, fd)
	return fd
}

// Whatever a test leaves open, nothing stays mounted, served or waiting when it ends.
func TestNothingLeft(t *testing.T) {
	tests := []struct {
		name  string
		leave func(t *testing.T, l *leaks, dir *fusetest.Dir, f *fusetest.File)
	}{
		{"nothing", func(*testing.T, *leaks, *fusetest.Dir, *fusetest.File) {}},
		{"an open file", func(t *testing.T, l *leaks, dir *fusetest.Dir, _ *fusetest.File) {
			l.open(t, dir.Path("weights"), unix.O_RDONLY)
		}},
		{"an open file that was read", func(t *testing.T, l *leaks, dir *fusetest.Dir, _ *fusetest.File) {
			if _, err := pread(l.open(t, dir.Path("weights"), unix.O_RDONLY|unix.O_DIRECT), aligned(t, mib), 0); err != nil {
				t.Error(err)
			}
		}},
		{"the directory", func(t *testing.T, l *leaks, dir *fusetest.Dir, _ *fusetest.File) {
			l.open(t, dir.Path(""), unix.O_PATH)
		}},
		{"a read that waits", func(t *testing.T, l *leaks, dir *fusetest.Dir, f *fusetest.File) {
			waiting := make(chan struct{})
			var once sync.Once
			f.OnRead(func(int64, int) { once.Do(func() { close(waiting) }) })
			f.SetGate(make(chan struct{}))
			fd := l.open(t, dir.Path("weights"), unix.O_RDONLY)
			l.readers.Go(func() {
				if n, err := pread(fd, make([]byte, 10), 0); err == nil {
					panic("a read of what is gone returns " + string(rune('0'+n)))
				}
			})
			<-waiting
		}},
	}
	t.Run("the first read", func(t *testing.T) { // from which on go-fuse keeps what it splices by: a pipe, and /dev/null
		dir := fusetest.Mount(t)
		dir.Put("weights", fusetest.New(mib, fusetest.Offsets))
		var l leaks
		fd := l.open(t, dir.Path("weights"), unix.O_RDONLY|unix.O_DIRECT)
		defer unix.Close(fd)
		if _, err := pread(fd, aligned(t, mib), 0); err != nil {
			t.Fatal(err)
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			left := watch(t)
			var l leaks
			var path string
			t.Run("test", func(t *testing.T) {
				f := fusetest.New(mib, fusetest.Offsets)
				dir := fusetest.Mount(t)
				dir.Put("weights", f)
				path = dir.Path("")
				tt.leave(t, &l, dir, f)
			})
			l.readers.Wait()
			for _, fd := range l.descriptors {
				unix.Close(fd)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v, want it gone", path, err)
			}
			left()
		})
	}
}

// watch returns a function that checks that what there is then was there before.
func watch(t *testing.T) (left func()) {
	goroutines, descriptors, mounts := runtime.NumGoroutine(), count(t, "/proc/self/fd"), mounted(t)
	return func() {
		t.Helper()
		if after := mounted(t); after != mounts {
			t.Errorf("mounts are left:\n%s", after)
		}
		if after := count(t, "/proc/self/fd"); after != descriptors {
			t.Errorf("%d descriptors are left open", after-descriptors)
		}
		for late := time.Now().Add(10 * time.Second); time.Now().Before(late); { // the last may still be on its way out
			if runtime.NumGoroutine() <= goroutines {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("%d goroutines are left", runtime.NumGoroutine()-goroutines)
	}
}

// mounted returns the lines of mountinfo that are ours.
func mounted(t *testing.T) string {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var ours strings.Builder
	for line := range strings.Lines(string(info)) {
		if strings.Contains(line, "fuse.fusetest") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A process that the test starts does not hold what serves its files.
func TestNotInherited(t *testing.T) {
	fusetest.Mount(t)
	out, err := exec.CommandContext(t.Context(), "ls", "-l", "/proc/self/fd").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("a child has these open:\n%s", out)
	}
}

// recorder is a test that goes on when it fails.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	failed int
}

func (r *recorder) Errorf(string, ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
}

// A script that panics fails its test, and its read.
func TestPanic(t *testing.T) {
	r := &recorder{TB: t}
	dir, f := fusetest.Mount(r), fusetest.New(mib, fusetest.Offsets)
	f.OnRead(func(int64, int) { panic("oops") })
	dir.Put("weights", f)
	if n, err := pread(open(t, dir.Path("weights"), 0), make([]byte, 10), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("pread = %d, %v, want EIO", n, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != 1 {
		t.Errorf("the test failed %d times, want once", r.failed)
	}
}

// Where nothing may be mounted tests are skipped, and say why: here by a process that is root of nothing but itself.
func TestSkipped(t *testing.T) {
	fusetest.Mount(t) // if it can't even be had here there is nothing to see
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestWellBehaved$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	out, err := cmd.CombinedOutput()
	if out == nil && err != nil {
		t.Skipf("no user namespace: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- SKIP: TestWellBehaved") || !strings.Contains(string(out), "no files that misbehave: mount fuse at") {
		t.Errorf("the test is not skipped: %v\n%s", err, out)
	}
}

// One processor is enough for those who read, those who serve them, and processes that are started meanwhile.
func TestOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir := fusetest.Mount(t)
	dir.Put("weights", fusetest.New(mib, fusetest.Offsets))
	for range 20 {
		f, err := os.Open(dir.Path("weights"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(make([]byte, mib), 0); err != nil {
			t.Error(err)
		}
		if err := exec.CommandContext(t.Context(), "true").Run(); err != nil {
			t.Error(err)
		}
		f.Close()
	}
}
