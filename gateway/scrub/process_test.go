package scrub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/scrub"
	"github.com/weighbridge/weighbridge/verifier/dio"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// patience is how long a test waits for what takes a moment on a busy machine.
const patience = time.Minute

// slow is a rate at which reading a model of a test takes an hour.
const slow = 1024

// holdEnv makes this program read the model of that path, whose signature lies beside it, slowly.
const holdEnv = "SCRUB_TEST_HOLD"

func hold(path string) {
	bundle, err := os.ReadFile(path + ".sig")
	if err == nil {
		_, err = scrub.Read(context.Background(), path, bundle, slow)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// model is a signed model of more than the burst, and its bundle.
func model(t *testing.T) (path string, bundle []byte) {
	t.Helper()
	s := newSite(t)
	path = filepath.Join(s.one, "a.gguf")
	s.must(os.WriteFile(path, make([]byte, 3*scrub.Burst), 0o644))
	bundle, err := os.ReadFile(s.SignModel(path))
	s.must(err)
	return path, bundle
}

// approval is the bundle of a statement that lists no files.
func (s *site) approval() []byte {
	payload, err := trust.NewApproval(statement.ID("sha256:"+strings.Repeat("0", 64)), trust.Approval{})
	s.must(err)
	return s.Sign(trusttest.Alice, payload).Bundle()
}

// until waits for something.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("still waiting for %s", what)
		}
	}
}

// reading waits for the process that reads for a process, and has its low priority.
func reading(t *testing.T, parent int) (pid int) {
	t.Helper()
	until(t, "the reading process", func() bool {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
		for _, list := range lists {
			data, _ := os.ReadFile(list)
			for _, field := range strings.Fields(string(data)) {
				line, _ := os.ReadFile("/proc/" + field + "/cmdline")
				if strings.HasPrefix(string(line), "/proc/self/exe\x00"+scrub.ReadCommand+"\x00lowered") {
					pid, _ = strconv.Atoi(field)
				}
			}
		}
		return pid != 0
	})
	return pid
}

// read returns how many bytes a process has read so far.
func read(pid int) (n int64) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	_, _ = fmt.Sscanf(string(data), "rchar: %d", &n)
	return n
}

func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

// TestPriority: whatever thread of the reading process reads or hashes, it gives way to all others; no thread of this one
// does.
func TestPriority(t *testing.T) {
	path, bundle := model(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := scrub.Read(ctx, path, bundle, slow)
		done <- err
	}()
	pid := reading(t, os.Getpid())
	until(t, "some of it to be read", func() bool { return read(pid) > scrub.Burst })
	for _, of := range []struct {
		pid, nice, class int
	}{{pid, 19, 3}, {os.Getpid(), 0, 0}} {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", of.pid))
		if err != nil || len(threads) < 2 {
			t.Fatalf("threads of %d = %q, %v, want some", of.pid, threads, err)
		}
		for _, thread := range threads {
			tid, _ := strconv.Atoi(filepath.Base(thread))
			stat, err := os.ReadFile(filepath.Join(thread, "stat"))
			if err != nil {
				continue // it has ended
			}
			_, rest, _ := strings.Cut(string(stat), ") ")
			fields := strings.Fields(rest)
			if nice, _ := strconv.Atoi(fields[16]); nice != of.nice {
				t.Errorf("thread %d of %d has niceness %d, want %d", tid, of.pid, nice, of.nice)
			}
			const whoProcess, classShift = 1, 13
			prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, uintptr(tid), 0)
			if class := int(prio) >> classShift; errno != 0 || class == 3 != (of.class == 3) {
				t.Errorf("thread %d of %d has I/O class %d, %v, want %d", tid, of.pid, class, errno, of.class)
			}
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v, want %v", err, context.Canceled)
	}
	if !gone(pid) {
		t.Error("the reading process outlives its context")
	}
}

// TestRunEnds: a scrubber whose context ends in the middle of a copy ends at once, and says nothing of it.
func TestRunEnds(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(s.one, "a.gguf")
	s.must(os.WriteFile(path, make([]byte, 3*scrub.Burst), 0o644))
	s.need(catalog.WhyServing, path, nil)
	s.must(flip(path, 0))
	s.terms.Rate, s.terms.Every = slow, time.Millisecond
	s.open()
	s.scrubber.ByProcess()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.scrubber.Run(ctx); close(done) }()
	pid := reading(t, os.Getpid())
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Run goes on")
	}
	if !gone(pid) {
		t.Error("the reading process outlives Run")
	}
	if got := s.scrubber.Problems(); len(got) != 0 || len(s.records) != 0 {
		t.Errorf("problems = %q, records %v, want none of what was not read to its end", got, s.records)
	}
}

// TestReaderDiesWithItsParent, however that ends.
func TestReaderDiesWithItsParent(t *testing.T) {
	path, _ := model(t)
	parent := exec.CommandContext(t.Context(), "/proc/self/exe")
	parent.Env = append(os.Environ(), holdEnv+"="+path)
	complaint, err := parent.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := reading(t, parent.Process.Pid)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(complaint); lines.Scan(); {
		t.Errorf("the parent says %s", lines.Text())
	}
	parent.Wait()
	until(t, "the reading process to end", func() bool { return gone(pid) })
}

// TestCacheIsLeftAlone: reading a copy brings nothing of it into the page cache, and takes nothing out.
func TestCacheIsLeftAlone(t *testing.T) {
	path, bundle := model(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d, err := dio.New(f); err != nil || !d.Direct() {
		t.Skipf("this file system has no direct reads: %v", err)
	}
	cached := func() uint64 {
		t.Helper()
		var st unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0); err != nil {
			t.Skipf("this kernel does not tell what is in the page cache: %v", err)
		}
		return st.Cache
	}
	for _, drop := range []bool{false, true} {
		if drop {
			if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
				t.Fatal(err)
			}
		}
		before := cached()
		if bad, err := scrub.Read(t.Context(), path, bundle, fast); bad != "" || err != nil {
			t.Fatalf("Read = %q, %v", bad, err)
		}
		if after := cached(); after != before {
			t.Errorf("%d pages are in the cache after reading, %d before", after, before)
		}
	}
}

// TestDeviceIsRead: what was just written lies in the page cache, and is read from the device all the same.
func TestDeviceIsRead(t *testing.T) {
	path, bundle := model(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d, err := dio.New(f); err != nil || !d.Direct() {
		t.Skipf("this file system has no direct reads: %v", err)
	}
	fromDevice := func() (n int64) {
		data, _ := os.ReadFile("/proc/self/io")
		_, rest, _ := strings.Cut(string(data), "\nread_bytes: ")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Skipf("this kernel does not count what is read: %v", err)
		}
		return n
	}
	before := fromDevice()
	if bad, err := scrub.ReadHere(t.Context(), path, bundle); bad != "" || err != nil {
		t.Fatalf("Read = %q, %v", bad, err)
	}
	if n := fromDevice() - before; n < 3*scrub.Burst {
		t.Errorf("%d of %d bytes came from the device", n, 3*scrub.Burst)
	}
}

// TestReadFails: what keeps the process from reading is an error, and no verdict.
func TestReadFails(t *testing.T) {
	path, bundle := model(t)
	for name, tt := range map[string]struct {
		bundle []byte
		want   string
	}{
		"no statement":      {[]byte("{}"), "read job"},
		"another statement": {newSite(t).approval(), "read job"},
	} {
		if bad, err := scrub.Read(t.Context(), path, tt.bundle, fast); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Read = %q, %v, want %q", name, bad, err, tt.want)
		}
	}
	if bad, err := scrub.Read(t.Context(), path+".gone", bundle, fast); err != nil || !strings.HasPrefix(bad, "can't be read: open model") {
		t.Errorf("Read of nothing = %q, %v", bad, err)
	}
}
