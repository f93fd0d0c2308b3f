package crashtest_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
)

// list returns what a directory holds: name=contents, in order of the names.
func list(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all = append(all, strings.TrimPrefix(path, dir+"/")+"="+string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func sync(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// What each crash leaves after each operation.
func TestCrashes(t *testing.T) {
	disk, after := crashtest.Mount(t), crashtest.Mount(t)
	in := func(name string) string { return filepath.Join(disk.Path(), name) }
	write := func(name, data string) error { return os.WriteFile(in(name), []byte(data), 0o600) }
	tests := []struct {
		name                string
		do                  func() error
		killed, lost        string
		namesEarly, tornOff string
	}{
		{"nothing", func() error { return nil }, "", "", "", ""},
		{"written", func() error { return write("a", "1234") }, "a=1234", "", "a=", "a=12"},
		{"file synced", func() error { sync(t, in("a")); return nil }, "a=1234", "", "a=1234", "a=1234"},
		{"directory synced", func() error { sync(t, in("")); return nil }, "a=1234", "a=1234", "a=1234", "a=1234"},
		{"overwritten", func() error { return write("a", "56") }, "a=56", "a=1234", "a=1234", "a=5"},
		{"renamed", func() error { return os.Rename(in("a"), in("b")) }, "b=56", "a=1234", "b=1234", "b=5"},
		{"another", func() error { return write("c", "7") }, "b=56 c=7", "a=1234", "b=1234 c=", "b=5 c="},
		{"directory synced again", func() error { sync(t, in("")); return nil }, "b=56 c=7", "b=1234 c=", "b=1234 c=", "b=5 c="},
		{"replaced", func() error { sync(t, in("c")); return os.Rename(in("c"), in("b")) }, "b=7", "b=1234 c=7", "b=7", "b=7"},
		{"removed", func() error { return os.Remove(in("b")) }, "", "b=1234 c=7", "", ""},
		{"below", func() error {
			defer sync(t, in("d"))
			return errors.Join(os.Mkdir(in("d"), 0o700), write("d/e", "89"))
		}, "d/e=89", "b=1234 c=7", "d/e=", "d/e=8"},
		{"above synced", func() error { sync(t, in("")); return nil }, "d/e=89", "d/e=", "d/e=", "d/e=8"},
		{"truncated", func() error { sync(t, in("d/e")); return os.Truncate(in("d/e"), 1) }, "d/e=8", "d/e=89", "d/e=89", "d/e="},
	}
	for _, tt := range tests {
		if err := tt.do(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		for i, want := range []string{tt.killed, tt.lost, tt.namesEarly, tt.tornOff} {
			crash := crashtest.Crashes[i]
			after.Load(disk.Image(crash))
			if got := list(t, after.Path()); got != want {
				t.Errorf("%s, then %s: %q, want %q", tt.name, crash, got, want)
			}
			// Only after a kill there is something that another crash can take.
			after.Load(after.Image(crashtest.PowerLost))
			if i == 0 {
				want = tt.lost
			}
			if got := list(t, after.Path()); got != want {
				t.Errorf("%s, then %s, then power lost: %q, want %q", tt.name, crash, got, want)
			}
		}
	}
}

func TestFaults(t *testing.T) {
	disk := crashtest.Mount(t)
	// Two operations, and then two more.
	make2 := func(name string) (error, error) {
		dir := filepath.Join(disk.Path(), name)
		return os.Mkdir(dir, 0o700), os.Chmod(disk.Path(), 0o700)
	}
	tests := []struct {
		name  string
		fault crashtest.Fault
		fails [4]bool
		made  bool
	}{
		{"none", crashtest.Fault{}, [4]bool{}, true},
		{"once", crashtest.Fault{At: 1, Errno: unix.ENOSPC}, [4]bool{true}, false},
		{"once, late", crashtest.Fault{At: 1, Errno: unix.ENOSPC, Late: true}, [4]bool{true}, true},
		{"the second", crashtest.Fault{At: 2, Errno: unix.ENOSPC}, [4]bool{false, true}, true},
		{"from the second on", crashtest.Fault{At: 2, Errno: unix.ENOSPC, Rest: true}, [4]bool{false, true, true, true}, true},
		{"never", crashtest.Fault{At: 5, Errno: unix.ENOSPC, Rest: true}, [4]bool{}, true},
		{"looks", crashtest.Fault{At: 1, Errno: unix.ENOSPC, Looks: true, Rest: true}, [4]bool{true, true, true, true}, false},
	}
	for _, tt := range tests {
		disk.Load(crashtest.Empty())
		told := false
		tt.fault.Then = func() { told = true }
		disk.Arm(tt.fault)
		a, b := make2("x")
		c, d := make2("y")
		for i, err := range []error{a, b, c, d} {
			if tt.fails[i] != errors.Is(err, unix.ENOSPC) || !tt.fails[i] && err != nil {
				t.Errorf("%s: operation %d = %v, want it to fail: %t", tt.name, i+1, err, tt.fails[i])
			}
		}
		if struck := tt.fails != [4]bool{}; disk.Struck() != struck || told != struck {
			t.Errorf("%s: Struck = %t, told = %t, want %t", tt.name, disk.Struck(), told, struck)
		}
		disk.Heal()
		if _, err := os.Stat(filepath.Join(disk.Path(), "x")); (err == nil) != tt.made {
			t.Errorf("%s: Stat = %v, want it made: %t", tt.name, err, tt.made)
		}
	}
}

// A process that is killed in an operation does nothing more, whether the operation takes effect or not.
func TestKill(t *testing.T) {
	disk := crashtest.Mount(t)
	for _, late := range []bool{false, true} {
		disk.Load(crashtest.Empty())
		in := disk.Path() + "/"
		cmd := exec.CommandContext(t.Context(), "mkdir", in+"a", in+"b", in+"c")
		started := make(chan struct{}) // it may be there before Start says so
		disk.Arm(crashtest.Fault{At: 2, Errno: unix.EIO, Rest: true, Late: late, Then: func() { <-started; cmd.Process.Kill() }})
		err := cmd.Start()
		close(started)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			t.Errorf("mkdir = %v, want it killed", err)
		}
		disk.Heal()
		entries, err := os.ReadDir(disk.Path())
		if want := map[bool]int{false: 1, true: 2}[late]; err != nil || len(entries) != want {
			t.Errorf("late %t: %v, %v, want %d directories", late, entries, err, want)
		}
	}
}
