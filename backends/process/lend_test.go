package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/process"
)

// A child reads what is lent to it, holds none of it, and once it is taken back nobody does.
func TestLend(t *testing.T) {
	executable := copyOfSelf()
	defer executable.Close()
	var files []*os.File
	for _, content := range []string{"first", "second"} {
		files = append(files, memoryFile(t, "lent-"+content, content))
	}
	gone, last, err := os.Pipe() // says that its other end, lent last, is closed everywhere
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	files = append(files, last)
	own := memoryFile(t, "own", "mine")
	defer own.Close()
	lines := newLineLog()
	p, err := process.Start(process.Config{
		Exec: executable, Name: standin, Args: []string{"borrow", process.Path(0), process.Path(1), "names/two"},
		Files: []*os.File{own}, Lent: files, Dir: t.TempDir(), Log: lines.logger(), Links: map[string]int{"names/two": 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(t.Context())
	for _, f := range files {
		f.Close()
	}
	for _, want := range []string{"mine <nil>", "first <nil>", "second <nil>", "[0 1 2 3]"} {
		lines.waitFor(t, want)
	}
	if got := holders(t, "lent-"); len(got) != 2 || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, fmt.Sprint(p.PID(), " ")) }) {
		t.Errorf("the files are held by %q, want one other process than %d to hold both", got, p.PID())
	}
	if got := holders(t, "own"); len(got) != 2 { // this test, and the child
		t.Errorf("the child's own file is held by %q, want nobody beside it", got)
	}
	p.TakeBack()
	p.TakeBack()
	gone.SetReadDeadline(time.Now().Add(patience))
	if _, err := gone.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("files that were taken back are not closed: %v", err)
	}
	if held := holders(t, "lent-"); len(held) > 0 {
		t.Errorf("the files are still held by %q", held)
	}
	select {
	case <-p.Done():
		t.Errorf("the child ended with its files: %v", p.Err())
	default:
	}

	child, err := unix.PidfdOpen(p.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	begun := time.Now()
	p.Stop(t.Context())
	if took := time.Since(begun); took > time.Second || !ended(child) {
		t.Errorf("Stop took %s, want SIGTERM to reach the child and end it", took)
	}
}

// However one of both ends, so does the other.
func TestLenderAndChildEndTogether(t *testing.T) {
	for _, victim := range []string{"child", "lender"} {
		t.Run(victim, func(t *testing.T) {
			executable := copyOfSelf()
			defer executable.Close()
			p, err := process.Start(process.Config{Exec: executable, Name: standin, Args: []string{"quiet"}, Lent: []*os.File{executable}, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			child, err := unix.PidfdOpen(p.PID(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(child)
			pid := p.PID()
			if victim == "lender" {
				pid = parentOf(t, pid)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.Done():
			case <-time.After(patience):
				t.Fatal("the other one goes on")
			}
			if err := p.Err(); victim == "child" && !strings.Contains(err.Error(), "137") { // 128 and SIGKILL
				t.Errorf("Err() = %v, want exit status 137", err)
			}
			if fds := []unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}; !polled(fds) {
				t.Error("the child is still there when Done is closed")
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			p.Stop(ctx)
		})
	}
}

// polled reports whether a descriptor is ready this moment.
func polled(fds []unix.PollFd) bool {
	n, _ := unix.Poll(fds, 0)
	return n == 1
}

func parentOf(t *testing.T, pid int) (parent int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // after the name
	var state string
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}

// memoryFile returns a memory file, open for reading.
func memoryFile(t *testing.T, name, content string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// holders returns "PID FD" for each descriptor, in any process, of a memory file with that name.
func holders(t *testing.T, name string) (found []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "/memfd:"+name) {
			parts := strings.Split(fd, "/")
			found = append(found, parts[2]+" "+parts[4])
		}
	}
	return found
}
