package audit_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
)

// before is how many records there are when the fault comes: the life that meets it goes over the end of a tile.
const before = 254

// A life is a log that is opened, written and closed, whatever fails. acked are the reasons of the records that were
// acknowledged, in order, and noted those that Close said were written; checkpoints are all that could be seen.
type life struct {
	acked, noted []string
	checkpoints  [][]byte
}

func live(ctx context.Context, dir string, acked func(why string)) life {
	seen := life{checkpoints: checkpoint(dir)}
	l, err := audit.Open(config(dir))
	if err != nil {
		return seen
	}
	for n := range 3 {
		r := withdrawal(before + n)
		if _, err := l.Append(ctx, r); err == nil {
			seen.acked = append(seen.acked, r.Why)
			acked(r.Why)
		}
		seen.checkpoints = append(seen.checkpoints, checkpoint(dir)...)
	}
	r := withdrawal(before + 3)
	l.Note(r)
	if l.Close() == nil {
		seen.noted = []string{r.Why}
	}
	return seen
}

// checkpoint returns the checkpoint that can be seen, if there is one.
func checkpoint(dir string) [][]byte {
	c, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return nil
	}
	return [][]byte{c}
}

// started returns a disk with the log that a life begins with.
func started(t *testing.T) (*crashtest.Disk, crashtest.Image) {
	disk := crashtest.Mount(t)
	create(t, disk.Path())
	write(t, disk.Path(), before)
	return disk, disk.Image(crashtest.PowerLost)
}

// checkAfter makes sure of a disk after a crash: the log verifies, but for what an interrupted write has left; it is opened
// again, holds what it held and each record that was acknowledged, and goes on.
func checkAfter(t *testing.T, dir string, seen life) {
	t.Helper()
	if p := verify(t, dir, nil); p != nil && !strings.Contains(p.Why, "is beyond") {
		t.Fatalf("Verify = %v", p)
	}
	l, err := audit.Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), withdrawal(1000)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Verify(dir, verifier(t), seen.checkpoints[0]); err != nil {
		t.Fatal(err)
	}
	var all []string
	times := map[string]int{}
	if _, _, err := audit.Read(dir, before, func(_ int64, entry []byte) error {
		r, err := audit.ParseRecord(entry)
		all = append(all, r.Why)
		times[r.Why]++
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, why := range append(seen.acked, seen.noted...) {
		if times[why] != 1 {
			t.Errorf("%q was acknowledged, and is there %d times: %q", why, times[why], all)
		}
	}
	for why, n := range times {
		if n > 1 {
			t.Errorf("%q is there %d times: %q", why, n, all)
		}
	}
}

// TestFaults: each operation on the disk fails, alone or with all after it, before or after it takes effect. Nothing that
// was acknowledged is lost, then or when power is lost; a single fault leaves a log that goes on by itself.
func TestFaults(t *testing.T) {
	disk, image := started(t)
	after := crashtest.Mount(t)
	killed, lost := []crashtest.Crash{crashtest.Killed}, []crashtest.Crash{crashtest.PowerLost}
	for _, tt := range []struct {
		crashtest.Fault
		crashes []crashtest.Crash
	}{
		{crashtest.Fault{Errno: unix.EIO, Rest: true}, crashtest.Crashes},
		{crashtest.Fault{Errno: unix.EIO, Rest: true, Late: true}, crashtest.Crashes},
		{crashtest.Fault{Errno: unix.EIO}, lost},
		{crashtest.Fault{Errno: unix.EIO, Late: true}, killed},
		{crashtest.Fault{Errno: unix.ENOSPC, Rest: true}, lost},
	} {
		f := tt.Fault
		for f.At = 1; ; f.At++ {
			disk.Load(image)
			disk.Arm(f)
			seen := live(t.Context(), disk.Path(), func(string) {})
			if !disk.Struck() {
				if len(seen.acked) != 3 || len(seen.noted) != 1 {
					t.Fatalf("without a fault: %q and %q", seen.acked, seen.noted)
				}
				break
			}
			disk.Heal()
			if !f.Rest && f.At > 20 && (len(seen.acked) < 2 || len(seen.noted) == 0) {
				t.Errorf("operation %d failed once: only %q and %q were written", f.At, seen.acked, seen.noted)
			}
			for _, crash := range tt.crashes {
				after.Load(disk.Image(crash))
				checkAfter(t, after.Path(), seen)
				// A checkpoint that was seen and not acknowledged may be lost with the power, and only so.
				for _, c := range seen.checkpoints {
					if p := verify(t, after.Path(), c); p != nil && crash == crashtest.Killed {
						t.Errorf("Verify against a checkpoint that was seen = %v", p)
					}
				}
				if t.Failed() {
					t.Fatalf("operation %d, %+v, then %v", f.At, f, crash)
				}
			}
		}
		if f.At < 40 {
			t.Errorf("%+v: a life had only %d operations", f, f.At-1)
		}
	}
}

// TestFaultsOfReading: a log that can't be read for a moment is not damaged by that.
func TestFaultsOfReading(t *testing.T) {
	disk, image := started(t)
	began := checkpoint(disk.Path())
	for n := 1; ; n++ {
		disk.Load(image)
		disk.Arm(crashtest.Fault{At: n, Errno: unix.EIO, Looks: true, Rest: true})
		seen := live(t.Context(), disk.Path(), func(string) {})
		seen.checkpoints = began
		if !disk.Struck() {
			break
		}
		disk.Load(disk.Image(crashtest.Killed))
		checkAfter(t, disk.Path(), seen)
		if t.Failed() {
			t.Fatalf("operation %d", n)
		}
	}
}

// TestFaultsOfCreate: a log is there whole or can be made.
func TestFaultsOfCreate(t *testing.T) {
	disk, after := crashtest.Mount(t), crashtest.Mount(t)
	for _, late := range []bool{false, true} {
		for n := 1; ; n++ {
			disk.Load(crashtest.Empty())
			disk.Arm(crashtest.Fault{At: n, Errno: unix.EIO, Rest: true, Late: late})
			err := audit.Create(config(disk.Path()))
			if !disk.Struck() {
				if err != nil || n < 5 {
					t.Errorf("Create = %v after %d operations", err, n-1)
				}
				break
			}
			if err == nil {
				t.Errorf("operation %d failed: Create = nil", n)
			}
			for _, crash := range crashtest.Crashes {
				after.Load(disk.Image(crash))
				if err := audit.Create(config(after.Path())); err != nil && !errors.Is(err, audit.ErrExists) {
					t.Errorf("operation %d, then %v: Create again = %v", n, crash, err)
				}
				if _, err := open(t, after.Path()).Append(t.Context(), withdrawal(1)); err != nil {
					t.Errorf("operation %d, then %v: Append = %v", n, crash, err)
				}
				whys(t, after.Path())
			}
		}
	}
}

// TestKill: a process that is killed in any operation leaves what it had acknowledged.
func TestKill(t *testing.T) {
	disk, image := started(t)
	after := crashtest.Mount(t)
	began := checkpoint(disk.Path())
	for _, late := range []bool{false, true} {
		for n := 1; ; n++ {
			disk.Load(image)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
			cmd.Env = append(os.Environ(), "AUDIT_TEST_LOG="+disk.Path())
			var out, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			started := make(chan struct{})
			disk.Arm(crashtest.Fault{At: n, Errno: unix.EIO, Rest: true, Late: late, Then: func() { <-started; cmd.Process.Kill() }})
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			close(started)
			err := cmd.Wait()
			seen := life{acked: strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), checkpoints: began}
			if out.Len() == 0 {
				seen.acked = nil
			}
			if !disk.Struck() {
				if err != nil || len(seen.acked) != 3 {
					t.Fatalf("not killed: %v, %q\n%s", err, seen.acked, &stderr)
				}
				break
			}
			if err == nil {
				t.Fatalf("operation %d: not killed", n)
			}
			after.Load(disk.Image(crashtest.PowerLost))
			checkAfter(t, after.Path(), seen)
			if t.Failed() {
				t.Fatalf("killed in operation %d, late %t, then power lost", n, late)
			}
		}
	}
}

// TestMain becomes the process that is killed, if that is what it was started for.
func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_TEST_LOG"); dir != "" {
		live(context.Background(), dir, func(why string) { os.Stdout.WriteString(why + "\n") })
		return
	}
	os.Exit(m.Run())
}
