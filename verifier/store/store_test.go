package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, data := range []string{"one", "another"} {
		if err := store.WriteFile(path, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != data {
			t.Errorf("ReadFile = %q, %v, want %q", got, err, data)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode = %v, %v, want 0640", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("directory holds %v, want the file alone", entries)
	}
	if err := store.WriteFile(filepath.Join(dir, "gone", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteFile(missing directory) = %v, want %v", err, fs.ErrNotExist)
	}
}

// TestWriteFileKeepsTheOldOnFailure fails the rename, after the new contents were written: no half-written file may
// stay behind, and the old one is untouched.
func TestWriteFileKeepsTheOldOnFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	// A directory in the way of the rename is a failure after the new contents were written.
	blocked := filepath.Join(dir, "blocked")
	if err := os.MkdirAll(filepath.Join(blocked, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store.WriteFile(blocked, []byte("new"), 0o600); err == nil {
		t.Error("WriteFile over a directory = nil, want an error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("directory holds %v, %v, want no temporary file left", entries, err)
	}
}

func TestReadStatements(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{
		"broken.json": "{", "empty.jsonl": "", ".half-written.json": "{", "README.md": "not a statement",
	} {
		write(t, filepath.Join(dir, name), data)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	set, bad, err := store.ReadStatements([]string{dir})
	if err != nil || len(set) != 0 {
		t.Errorf("ReadStatements = %v, %v, want no statement and no error", set, err)
	}
	var names []string
	for _, b := range bad {
		names = append(names, filepath.Base(b.File))
	}
	if len(names) != 3 {
		t.Errorf("problems with %v, want broken.json, empty.jsonl and link.json: dot-files and other names are not read", names)
	}
	if _, _, err := store.ReadStatements([]string{filepath.Join(dir, "gone")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadStatements(missing) = %v, want %v", err, fs.ErrNotExist)
	}
}

// TestReadStatementsThroughLinks reads a directory as Kubernetes mounts one: links into a directory that is itself
// replaced as a whole, and is not read on its own.
func TestReadStatementsThroughLinks(t *testing.T) {
	w := trusttest.New(t)
	payload, err := statement.New("urn:example:v1", "x", strings.Repeat("0", 64), struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..v1"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "..v1", "a.json"), string(w.Sign(trusttest.Alice, payload).Bundle()))
	for name, target := range map[string]string{
		"..data": "..v1", "a.json": "..data/a.json", "endless.json": "/dev/zero", "gone.json": "nowhere", "dir.json": "..v1",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	set, bad, err := store.ReadStatements([]string{dir})
	if err != nil || len(set) != 1 {
		t.Errorf("ReadStatements = %d statements, %v, want the one behind the link", len(set), err)
	}
	if len(bad) != 3 {
		t.Errorf("problems = %v, want the links to a device, a directory and nothing", bad)
	}
	for _, b := range bad {
		if filepath.Base(b.File) == "endless.json" && !strings.Contains(b.Err.Error(), "not a regular file") {
			t.Errorf("%s: %v, want it refused before it is read", b.File, b.Err)
		}
	}
}

func TestWatchStatements(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "statements")
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 1)
	noticed := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(30 * time.Second): // three rescans
			t.Fatalf("not noticed within 30 s: %s", what)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wait := store.WatchStatements(ctx, []string{dir}, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	put := func() {
		t.Helper()
		if err := store.WriteFile(filepath.Join(dir, "a.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put()
	noticed("a renamed file")

	// A directory may be replaced as a whole, and is watched again by the time that it was read.
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	noticed("another directory of the same name")
	start := time.Now()
	put()
	noticed("a file in it")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a file in the new directory was noticed after %v, which a rescan may have done", took)
	}
	cancel()
	wait()
}

// TestReadStatementsNeverWaits while somebody puts a pipe in a file's place, which nobody writes to.
func TestReadStatementsNeverWaits(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	write(t, path, "{")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		spare := filepath.Join(dir, "spare")
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if i%2 == 0 {
				_ = syscall.Mkfifo(spare, 0o600)
			} else {
				_ = os.WriteFile(spare, []byte("{"), 0o600)
			}
			_ = os.Rename(spare, path)
		}
	}()
	read := make(chan error, 1)
	go func() {
		for range 2000 {
			if _, _, err := store.ReadStatements([]string{dir}); err != nil {
				read <- err
				return
			}
		}
		read <- nil
	}()
	select {
	case err := <-read:
		if err != nil {
			t.Errorf("ReadStatements = %v, want nil", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("ReadStatements waits for a pipe")
	}
	close(stop)
	<-stopped
}

func TestState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := store.OpenState(dir); !errors.Is(err, store.ErrNoState) {
		t.Errorf("OpenState(missing) = %v, want %v", err, store.ErrNoState)
	}
	if err := store.CreateState(dir); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenState(dir); err == nil {
		t.Error("OpenState twice = nil, want it refused: two gateways would overwrite each other's floor")
	}
	if err := s.Raise(func(f trust.Floor) trust.Floor {
		f.PolicyVersion, f.PolicyDigest = 7, statement.ID("sha256:"+strings.Repeat("7", 64))
		return f
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.CreateState(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateState over a state = %v, want %v", err, fs.ErrExist)
	}
	s, err = store.OpenState(dir)
	if err != nil || s.Floor().PolicyVersion != 7 {
		t.Fatalf("OpenState = %v, %v, want the floor that was raised", s, err)
	}
	s.Close()
	for name, data := range map[string]string{
		"not JSON": "{", "unknown member": `{"format":2,"extra":1}`, "empty": "", "below nothing": `{"format":2,"policyVersion":-1}`,
		"with an epoch below nothing":  `{"format":2,"channels":{"chat":{"epoch":-5}}}`,
		"with a withdrawal of nothing": `{"format":2,"withdrawn":[{}]}`, "in another time": `{"format":2,"timeHighWater":"2026-06-01T12:00:00+02:00"}`,
		"with a name that is none": `{"format":2,"channels":{"chat":{"epoch":1,"publication":"SHA256:zz"}}}`,
	} {
		write(t, filepath.Join(dir, "floor.json"), data)
		if _, err := store.OpenState(dir); err == nil {
			t.Errorf("OpenState(floor %s) = nil, want an error: a floor that can't be read protects nothing", name)
		}
	}
}

// Whoever makes a state while another process has the directory would put an empty floor over what that raises.
func TestCreateStateWaitsForNobody(t *testing.T) {
	dir := t.TempDir()
	if err := store.CreateState(dir); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Remove(filepath.Join(dir, "floor.json")); err != nil { // as before the other has written it
		t.Fatal(err)
	}
	if err := store.CreateState(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("CreateState in a directory that is in use = %v, want it refused", err)
	}
}

// A state may be made in a directory whose parent this user can't read, as service managers lay them out.
func TestCreateStateBelowTheUnreadable(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "state")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(above, 0o311)); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(above, 0o700)
	if os.Geteuid() == 0 { // who may read everything: this thread becomes somebody else
		const nobody = 65534
		if err := errors.Join(os.Chown(above, nobody, -1), os.Chown(dir, nobody, -1), os.Chmod(filepath.Dir(above), 0o711)); err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer unix.Setfsuid(0)
		if err := unix.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := os.Open(above); !errors.Is(err, fs.ErrPermission) {
		f.Close()
		t.Fatalf("Open = %v, want %v", err, fs.ErrPermission)
	}
	if err := store.CreateState(dir); err != nil {
		t.Errorf("CreateState = %v", err)
	}
	if err := store.CreateState(filepath.Join(above, "other")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("CreateState beside it = %v, want %v", err, fs.ErrPermission)
	}
}

// TestRaiseFailsWhole makes the directory unwritable for the new floor: the old one must stand in memory and on disk.
func TestRaiseFailsWhole(t *testing.T) {
	dir := t.TempDir()
	if err := store.CreateState(dir); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.RemoveAll(dir); err != nil { // stronger than a mode: the tests may run as root
		t.Fatal(err)
	}
	if err := s.Raise(func(f trust.Floor) trust.Floor { f.PolicyVersion = 9; return f }); err == nil {
		t.Error("Raise without a directory = nil, want an error")
	}
	if got := s.Floor().PolicyVersion; got != 0 {
		t.Errorf("policy version = %d after a failed Raise, want 0", got)
	}
}

// A file that looks as before is not read again; one that does not is.
func TestStatementsAreReadOnce(t *testing.T) {
	w := trusttest.New(t)
	release := statement.ID("sha256:" + strings.Repeat("0", 64))
	w.Approve(release, trusttest.Alice, trust.Approval{})
	var s store.Statements
	read := func() []*statement.Signed {
		t.Helper()
		set, bad, err := s.Read([]string{w.Statements})
		if err != nil || len(bad) != 0 {
			t.Fatalf("Read = %v, %v", bad, err)
		}
		return set
	}
	first, again := read(), read()
	if len(first) != 1 || len(again) != 1 || first[0] != again[0] {
		t.Errorf("read %v and then %v, want one statement, and the same", first, again)
	}
	files, err := filepath.Glob(filepath.Join(w.Statements, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	other := w.Sign(trusttest.Bob, first[0].Payload())
	if err := os.WriteFile(files[0], other.Bundle(), 0o644); err != nil {
		t.Fatal(err)
	}
	if now := read(); len(now) != 1 || string(now[0].Bundle()) != string(other.Bundle()) {
		t.Error("a file that was written over was not read again")
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if now := read(); len(now) != 0 {
		t.Errorf("read %v of a file that is gone", now)
	}
}

// TestWriteFileOver: what is there and is no file is not replaced by one, which would be the end of a device.
func TestWriteFileOver(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir} {
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.WriteFile(path, []byte("x"), 0o600); err == nil {
			t.Errorf("WriteFile over %s = nil", before.Mode())
		}
		if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s is %v (%v) by now", before.Mode(), after, err)
		}
	}
}
