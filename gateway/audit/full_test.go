package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
)

// small mounts a disk of 4 MiB, or skips the test where only root may.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=4m"); errors.Is(err, unix.EPERM) {
		t.Skipf("no small disk: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no room on a disk until the returned function is called.
func fill(t *testing.T, disk string) func() {
	t.Helper()
	name := filepath.Join(disk, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk = %v, want ENOSPC", err)
	}
	return func() { os.Remove(name) }
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// onFullDisk runs a test with a log of one record, whose disk is then full, on a clock that moves when all wait.
func onFullDisk(t *testing.T, test func(t *testing.T, l *audit.Log, c audit.Config, free func())) {
	disk := small(t)
	synctest.Test(t, func(t *testing.T) {
		c := config(filepath.Join(disk, "audit"))
		c.Reserve = 1 << 20
		if err := audit.Create(c); err != nil {
			t.Fatal(err)
		}
		l, err := audit.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := l.Append(t.Context(), withdrawal(0)); err != nil {
			t.Fatal(err)
		}
		free := fill(t, disk)
		test(t, l, c, free)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// refusedFull makes sure that nothing that adds is recorded.
func refusedFull(t *testing.T, l *audit.Log) {
	t.Helper()
	size := l.Status().Size
	if index, err := l.Append(t.Context(), withdrawal(1000)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Append on a full disk = %d, %v, want ENOSPC", index, err)
	}
	synctest.Wait()
	if now := l.Status().Size; now != size {
		t.Errorf("the log has %d records, and had %d", now, size)
	}
}

// TestFull: with a full disk nothing that adds is recorded, and what only reduces is, into the reserve; which is whole again
// as soon as there is room.
func TestFull(t *testing.T) {
	onFullDisk(t, func(t *testing.T, l *audit.Log, c audit.Config, free func()) {
		before := strings.Join(ofLog(t, c.Dir), " ")
		refusedFull(t, l)
		if now := strings.Join(ofLog(t, c.Dir), " "); now != before {
			t.Errorf("files after an act was refused = %s, and were %s", now, before)
		}
		for n := range 300 {
			l.Note(withdrawal(n + 1))
			if n%7 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if s := l.Status(); s.Size != 301 || s.Queued != 0 || s.Err != nil {
			t.Errorf("Status = %+v, want 301 records", s)
		}
		left := size(t, c.Dir, "reserve")
		if left == 0 || left == c.Reserve {
			t.Errorf("the reserve has %d bytes, want part of %d", left, c.Reserve)
		}
		// There is room now, of the reserve, that no act may use.
		refusedFull(t, l)
		if now := size(t, c.Dir, "reserve"); now != left {
			t.Errorf("the reserve has %d bytes after an act was refused, and had %d", now, left)
		}
		free()
		time.Sleep(time.Minute)
		if now := size(t, c.Dir, "reserve"); now != c.Reserve {
			t.Errorf("the reserve has %d bytes once there is room, want %d", now, c.Reserve)
		}
		if index, err := l.Append(t.Context(), withdrawal(301)); err != nil || index != 301 {
			t.Errorf("Append once there is room = %d, %v, want 301", index, err)
		}
		if all := whys(t, c.Dir); all[300] != "number 300" || len(all) != 302 {
			t.Errorf("%d records, the last but one %q", len(all), all[300])
		}
	})
}

func size(t *testing.T, elem ...string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestFullReserveGone: when even the reserve is used up records wait in memory, the important ones longest, and what was
// lost is counted in the log once there is room.
func TestFullReserveGone(t *testing.T) {
	onFullDisk(t, func(t *testing.T, l *audit.Log, c audit.Config, free func()) {
		if err := os.Truncate(filepath.Join(c.Dir, "reserve"), 0); err != nil {
			t.Fatal(err)
		}
		again := fill2(t, filepath.Dir(c.Dir))
		for range audit.MaxQueued {
			l.Note(audit.Record{Kind: audit.KindStatementRefused, Why: "no"})
		}
		for n := range audit.MaxQueued {
			l.Note(withdrawal(n + 1))
		}
		synctest.Wait()
		s := l.Status()
		if s.Size != 1 || s.Queued != audit.MaxQueued || s.Lost != audit.MaxQueued || !errors.Is(s.Err, unix.ENOSPC) {
			t.Errorf("Status = %+v, want %d queued and as many lost", s, audit.MaxQueued)
		}
		free()
		again()
		time.Sleep(2 * time.Second)
		if s := l.Status(); s.Size != audit.MaxQueued+2 || s.Queued != 0 || s.Lost != 0 || s.Err != nil {
			t.Errorf("Status once there is room = %+v, want %d records", s, audit.MaxQueued+2)
		}
		all := whys(t, c.Dir)
		if got := slices.Index(all, "number 1"); got != 1+audit.MaxQueued/2 {
			t.Errorf("the first withdrawal is record %d, want %d", got, 1+audit.MaxQueued/2)
		}
		_, _, err := audit.Read(c.Dir, int64(len(all))-1, func(_ int64, entry []byte) error {
			r, err := audit.ParseRecord(entry)
			if r.Kind != audit.KindGap || r.Count != audit.MaxQueued {
				t.Errorf("the last record is %s of %d, want a gap of %d", r.Kind, r.Count, audit.MaxQueued)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// fill2 takes the room that there is after [fill].
func fill2(t *testing.T, disk string) func() {
	t.Helper()
	below := filepath.Join(disk, "more")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	return fill(t, below)
}

// TestFullAtStart: a gateway starts on a full disk, without a reserve: nothing that adds is recorded, what reduces waits.
func TestFullAtStart(t *testing.T) {
	onFullDisk(t, func(t *testing.T, l *audit.Log, c audit.Config, free func()) {
		if err := errors.Join(l.Close(), os.Remove(filepath.Join(c.Dir, "reserve"))); err != nil {
			t.Fatal(err)
		}
		again := fill2(t, filepath.Dir(c.Dir))
		l, err := audit.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		refusedFull(t, l)
		l.Note(withdrawal(1))
		synctest.Wait()
		if s := l.Status(); s.Size != 1 || s.Queued != 1 {
			t.Errorf("Status = %+v, want one queued", s)
		}
		free()
		again()
		if _, err := l.Append(t.Context(), withdrawal(2)); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if got := strings.Join(whys(t, c.Dir), ", "); got != "number 0, number 1, number 2" {
			t.Errorf("records = %s", got)
		}
	})
}

// TestCloseFull: records that can't be written are not lost in silence.
func TestCloseFull(t *testing.T) {
	onFullDisk(t, func(t *testing.T, l *audit.Log, c audit.Config, free func()) {
		if err := os.Truncate(filepath.Join(c.Dir, "reserve"), 0); err != nil {
			t.Fatal(err)
		}
		fill2(t, filepath.Dir(c.Dir))
		l.Note(withdrawal(1))
		l.Note(withdrawal(2))
		err := l.Close()
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "2 records are lost") {
			t.Errorf("Close = %v, want two records lost for want of room", err)
		}
	})
}

// TestRetry: what failed is tried again without anybody asking.
func TestRetry(t *testing.T) {
	disk, _ := started(t)
	synctest.Test(t, func(t *testing.T) {
		l := open(t, disk.Path())
		disk.Arm(crashtest.Fault{At: 1, Errno: unix.EIO, Rest: true})
		l.Note(withdrawal(before))
		if _, err := l.Append(t.Context(), withdrawal(1000)); !errors.Is(err, unix.EIO) {
			t.Errorf("Append = %v, want EIO", err)
		}
		time.Sleep(time.Minute)
		if s := l.Status(); s.Queued != 1 || !errors.Is(s.Err, unix.EIO) {
			t.Errorf("Status = %+v, want one queued for EIO", s)
		}
		disk.Heal()
		time.Sleep(2 * time.Second)
		if s := l.Status(); s.Queued != 0 || s.Err != nil || s.Size != before+1 {
			t.Errorf("Status = %+v, want %d records", s, before+1)
		}
	})
}

// TestHangingDisk: nothing but an act waits for a disk, and only as long as it wants to.
func TestHangingDisk(t *testing.T) {
	disk, _ := started(t)
	l := open(t, disk.Path())
	hangs, goes := make(chan struct{}), make(chan struct{})
	disk.Arm(crashtest.Fault{At: 1, Errno: unix.EIO, Then: func() { close(hangs); <-goes }})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := l.Append(ctx, withdrawal(before))
		first <- err
	}()
	<-hangs
	for n := range 2 * audit.MaxQueued {
		l.Note(withdrawal(n))
		l.RefusedCaller(fmt.Sprint("spiffe://bank.example/", n), "chat", "access")
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "while it was written") {
		t.Errorf("Append = %v, want it canceled while it was written", err)
	}
	if _, err := l.Append(ctx, withdrawal(-1)); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "while it was written") {
		t.Errorf("Append = %v, want it canceled before it was written", err)
	}
	if s := l.Status(); s.Queued != audit.MaxQueued || s.Lost != audit.MaxQueued {
		t.Errorf("Status = %+v, want %d queued and as many lost", s, audit.MaxQueued)
	}
	close(goes)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := whys(t, disk.Path())
	if slices.Contains(all, "number -1") {
		t.Error("an act that was taken back is recorded")
	}
}

// TestReserve: a reserve is room, not the size of a file.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	name := filepath.Join(dir, "reserve")
	if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, config(dir).Reserve)); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil || st.Blocks*512 < config(dir).Reserve {
		t.Errorf("the reserve takes %d bytes, %v, want %d", st.Blocks*512, err, config(dir).Reserve)
	}
}

// TestFailedActLeavesNothing: an act that was not recorded takes no room.
func TestFailedActLeavesNothing(t *testing.T) {
	disk, image := started(t)
	want := strings.Join(ofLog(t, disk.Path()), " ")
	for n := 1; ; n++ {
		disk.Load(image)
		l := open(t, disk.Path())
		disk.Arm(crashtest.Fault{At: n, Errno: unix.ENOSPC})
		_, err := l.Append(t.Context(), withdrawal(before))
		struck := disk.Struck()
		if cerr := l.Close(); cerr != nil {
			t.Fatal(cerr)
		}
		if !struck {
			break
		}
		if got := strings.Join(ofLog(t, disk.Path()), " "); err != nil && got != want && l.Status().Size == before {
			t.Errorf("operation %d failed: files = %s, want %s", n, got, want)
		}
	}
}

// TestMixed: an act is written together with notes, not after all of them, and told its own index.
func TestMixed(t *testing.T) {
	disk, _ := started(t)
	l := open(t, disk.Path())
	hangs, goes := make(chan struct{}), make(chan struct{})
	disk.Arm(crashtest.Fault{At: 1, Late: true, Then: func() { close(hangs); <-goes }})
	l.Note(withdrawal(1001))
	<-hangs
	for n := range 1000 {
		l.Note(withdrawal(2000 + n))
	}
	index := make(chan int64)
	go func() {
		i, err := l.Append(t.Context(), withdrawal(1003))
		if err != nil {
			t.Error(err)
		}
		index <- i
	}()
	for l.Status().Queued < 1002 {
		runtime.Gosched()
	}
	close(goes)
	got := <-index
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := whys(t, disk.Path())
	if want := slices.Index(all, "number 1003"); got != int64(want) || want > before+300 || len(all) != before+1002 {
		t.Errorf("Append = %d, want %d, before most of the other %d", got, want, len(all)-before)
	}
}
