package hostmem_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

func TestMain(m *testing.M) {
	if os.Getenv("HOSTMEM_TEST_CHILD") != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// What the kernel really writes is understood, and agrees with what it says elsewhere.
func TestHere(t *testing.T) {
	room, err := hostmem.Here.Available()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if err != nil || room.Bytes < 16<<20 || room.Bytes > int64(info.Totalram)*int64(info.Unit) || room.Limit == "" {
		t.Errorf("Available = %+v, %v, want some of the %d bytes that this machine has", room, err, info.Totalram)
	}
	swap, err := hostmem.Here.Swap()
	if err != nil || swap.Why == "" || swap.On && info.Totalswap == 0 {
		t.Errorf("Swap = %+v, %v, but there are %d bytes of swap", swap, err, info.Totalswap)
	}
	huge := hostmem.Here.HugePages()
	if huge.Usable && (huge.Size <= int64(os.Getpagesize()) || huge.Size&(huge.Size-1) != 0) {
		t.Errorf("a huge page has %d bytes", huge.Size)
	}
	t.Logf("%d MiB (%s), %+v, %+v", room.Bytes>>20, room.Limit, huge, swap)
}

// The kernel ends a process that takes more than its cgroup allows, so the room must not be more than that, shrink with
// what is taken, and not with page cache.
func TestHereLimited(t *testing.T) {
	const limit, taken, slack = 192 << 20, 64 << 20, 8 << 20
	dir, file := limitedCgroup(t, limit)

	files := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "HOSTMEM_TEST_CHILD="+files)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close() // it ends there
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v", err)
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	answers := json.NewDecoder(out)
	ask := func(do string) hostmem.Room {
		t.Helper()
		var room hostmem.Room
		if _, err := fmt.Fprintf(in, "%s %d\n", do, taken); err != nil {
			t.Fatal(err)
		}
		if err := answers.Decode(&room); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%s (%s)", filepath.Base(dir), file); !strings.HasSuffix(room.Limit, want) {
			t.Errorf("after %s: the limit is %q, want %q", do, room.Limit, want)
		}
		return room
	}
	before := ask("nothing")
	if before.Bytes > limit || before.Bytes < limit-32<<20 {
		t.Errorf("there is room for %d bytes, want almost %d", before.Bytes, limit)
	}
	after := ask("take")
	if after.Bytes > before.Bytes-taken+slack || after.Bytes < before.Bytes-taken-slack {
		t.Errorf("after taking %d bytes there is room for %d, want that much less than %d", taken, after.Bytes, before.Bytes)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(files, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Logf("page cache is not tried: %s is memory itself (%v)", files, err)
		return
	}
	if cached := ask("cache"); cached.Bytes < after.Bytes-slack {
		t.Errorf("with a file in the cache there is room for %d bytes, want the %d before", cached.Bytes, after.Bytes)
	}
}

// limitedCgroup makes a memory cgroup, and returns its directory and the file with its limit.
func limitedCgroup(t *testing.T, limit int) (dir, file string) {
	t.Helper()
	for parent, file := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		dir, err := os.MkdirTemp(parent, "hostmem-test-*")
		if err != nil {
			t.Logf("no cgroup can be made: %v", err)
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("the cgroup is left behind: %v", err)
			}
		})
		// Opened, not created: where memory is not controlled there is no such file.
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
		if err != nil {
			t.Logf("no limit can be set: %v", err)
			continue
		}
		_, err = fmt.Fprint(f, limit)
		f.Close()
		if err != nil {
			t.Logf("no limit can be set: %v", err)
			continue
		}
		return dir, file
	}
	t.Skip("a memory limit can't be set here: it takes root and a memory controller")
	return "", ""
}

// child does what it is told, line by line, and says what room there is then.
func child() {
	answer := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var do string
		var n int
		_, err := fmt.Sscan(lines.Text(), &do, &n)
		switch {
		case err != nil:
		case do == "take":
			// Not from Go's heap, for which the race detector would take several times as much.
			_, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
		case do == "cache":
			err = cacheFile(filepath.Join(os.Getenv("HOSTMEM_TEST_CHILD"), "file"), int64(n))
		}
		room, roomErr := hostmem.Here.Available()
		if err == nil {
			err = roomErr
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		answer.Encode(room)
	}
}

// cacheFile leaves a file in the page cache, written.
func cacheFile(name string, n int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, zeros{}, n); err != nil {
		return err
	}
	return f.Sync()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
