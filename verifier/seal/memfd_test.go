package seal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/seal"
)

// checkImmutable tries every way of the file interface to change a sealed file.
func checkImmutable(t *testing.T, f *os.File) {
	t.Helper()
	fd := int(f.Fd())
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE; err != nil || seals&want != want {
		t.Errorf("seals are %#x, %v, want all of %#x", seals, err, want)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("the descriptor's flags are %#x, want it read-only", flags)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Error("the descriptor would leak into every child")
	}
	if _, err := unix.Write(fd, []byte("x")); err == nil {
		t.Error("write(2) succeeds")
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	if w, err := os.OpenFile(path, os.O_RDWR, 0); err == nil { // root may open what the mode forbids
		defer w.Close()
		if _, err := w.WriteAt([]byte("x"), 0); err == nil {
			t.Error("write through a descriptor opened anew succeeds")
		}
		for _, size := range []int64{0, 1 << 30} {
			if err := w.Truncate(size); err == nil {
				t.Errorf("ftruncate to %d succeeds", size)
			}
		}
		if err := unix.Fallocate(int(w.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096); err == nil {
			t.Error("punching a hole succeeds")
		}
		if m, err := unix.Mmap(int(w.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			t.Error("a writable shared mapping succeeds")
			unix.Munmap(m)
		}
		if m, err := unix.Mmap(int(w.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED); err == nil {
			if err := unix.Mprotect(m, unix.PROT_READ|unix.PROT_WRITE); err == nil {
				t.Error("making a shared mapping writable succeeds")
			}
			unix.Munmap(m)
		}
	}
	if err := os.Truncate(path, 0); err == nil {
		t.Error("truncate(2) succeeds")
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err == nil {
		t.Error("the seals can still be changed")
	}
}

func TestSealedCannotChange(t *testing.T) {
	w, err := load(t.Context(), manifest(t, approved), newSource(t, approved), 4*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f, err := w.Dup("weights.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	checkImmutable(t, f)
	small, err := seal.Bytes("template", []byte("{{ x }}"))
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	checkImmutable(t, small)
	if data, err := io.ReadAll(small); string(data) != "{{ x }}" || err != nil {
		t.Errorf("Bytes holds %q, %v", data, err)
	}
	if got := content(t, w, "weights.gguf"); got != approved["weights.gguf"] {
		t.Error("the weights changed")
	}
	// What was handed out outlives Close, and other descriptors have their own offset.
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(f); string(data) != approved["weights.gguf"] || err != nil {
		t.Errorf("a descriptor holds %d bytes after Close, %v", len(data), err)
	}
}

// Whatever went wrong before, memory that lacks a seal is never handed out.
func TestUnsealedIsRefused(t *testing.T) {
	for _, seals := range []int{0, unix.F_SEAL_SHRINK | unix.F_SEAL_GROW, unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE} {
		fd, err := unix.MemfdCreate("test", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "test")
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		if r, err := seal.Reopen(f, "test"); !errors.Is(err, seal.ErrNotSealed) {
			t.Errorf("with seals %#x = %v, %v, want ErrNotSealed", seals, r, err)
		}
		f.Close()
	}
}

func TestExecutable(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	data, err := os.ReadFile("/proc/self/exe") // the test binary itself: `-test.list` answers without running a test
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	want := "sha256:" + hex.EncodeToString(sum[:])
	before := descriptors(t)
	f, got, err := seal.Executable(t.Context(), path, "")
	if err != nil || got != want {
		t.Fatalf("Executable = %s, %v, want %s", got, err, want)
	}
	checkImmutable(t, f)
	if err := os.WriteFile(path, []byte("#!/bin/false"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.list", "TestExecutable")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("TestExecutable")) {
		t.Errorf("the sealed program does not run: %v\n%s", err, out)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := seal.Executable(t.Context(), path, want); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Executable of another program = %v, want it to name the digests", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, filepath.Join(dir, "nowhere"), "/dev/zero"} {
		if _, _, err := seal.Executable(t.Context(), path, ""); err == nil {
			t.Errorf("Executable(%s) succeeds", path)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

// TestPrograms: a program is read once while its file is the same, and anew when it is another.
func TestPrograms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var kept seal.Programs
	inode := func(content, want string) uint64 {
		t.Helper()
		f, sum, err := kept.Executable(t.Context(), path, want)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		digest := sha256.Sum256([]byte(content))
		if sum != "sha256:"+hex.EncodeToString(digest[:]) {
			t.Errorf("Executable = %s, want that of %q", sum, content)
		}
		checkImmutable(t, f)
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	write("first")
	first := inode("first", "")
	if again := inode("first", ""); again != first {
		t.Error("the same program was copied twice")
	}
	write("another")
	if other := inode("another", ""); other == first {
		t.Error("what was kept is executed in place of another program")
	}
	if _, _, err := kept.Executable(t.Context(), path, "sha256:"+strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "has digest") {
		t.Errorf("Executable of another build = %v, want it to name the digests", err)
	}
	os.Remove(path)
	if _, _, err := kept.Executable(t.Context(), path, ""); err == nil {
		t.Error("a program that is gone is executed")
	}
}
