package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/store"
)

// Names in a log's directory, beside tile/.
const (
	checkpointName = "checkpoint"
	lockName       = "lock"
	nextName       = ".next" // a file that is being written; whatever has this name is of no worth
	reserveName    = "reserve"
	tileName       = "tile"
)

// A disk writes below a log's directory. What it has put there is durable once [disk.sync] has returned for the
// directories that put returned.
type disk struct {
	dir  string
	made map[string]bool // directories that are durable
}

func newDisk(dir string) *disk { return &disk{dir: dir, made: map[string]bool{".": true}} }

// put writes a whole new file, or replaces one, and returns its directory. A crash leaves the old file or the new one.
func (d *disk) put(f file) (string, error) {
	if err := d.stage(f.data); err != nil {
		return "", fmt.Errorf("write %s: %w", f.path, err)
	}
	return path.Dir(f.path), d.move(f.path)
}

// stage writes what a file will hold, and makes that durable before it has a name.
func (d *disk) stage(data []byte) error {
	name := filepath.Join(d.dir, nextName)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, remove(name))
	}
	return nil
}

// move gives what was staged its name. On an error it may have it all the same.
func (d *disk) move(name string) error {
	staged := filepath.Join(d.dir, nextName)
	err := d.mkdir(path.Dir(name))
	if err == nil {
		err = os.Rename(staged, filepath.Join(d.dir, name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, remove(staged)))
	}
	return nil
}

// mkdir makes a directory, and makes its name durable: what is in it is worth nothing without.
func (d *disk) mkdir(dir string) error {
	if d.made[dir] {
		return nil
	}
	parent := path.Dir(dir)
	if err := d.mkdir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(d.dir, dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(filepath.Join(d.dir, parent)); err != nil {
		return err
	}
	d.made[dir] = true
	return nil
}

// sync makes durable what has got names in the directories.
func (d *disk) sync(dirs map[string]bool) error {
	for dir := range dirs {
		if err := syncDir(filepath.Join(d.dir, dir)); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a file, and the directory of partial tiles if it was the last in it.
func (d *disk) remove(name string) error {
	if err := remove(filepath.Join(d.dir, name)); err != nil {
		return err
	}
	if dir := path.Dir(name); path.Ext(dir) == ".p" && os.Remove(filepath.Join(d.dir, dir)) == nil {
		delete(d.made, dir)
	}
	return nil
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile reads a file that anyone may have put there.
func readFile(name string, limit int) ([]byte, error) { return store.ReadFile(name, int64(limit)) }

// lock takes the log for this process alone. Whoever only reads asks by held, and never takes it.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another gateway: %w", dir, err)
	}
	return f, nil
}

// held reports whether a gateway writes the log.
func held(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

// full reports whether a write failed for want of room.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// A reserve is a file that holds room for what must be recorded when the disk is full.
type reserve struct {
	path string
	size int64 // when whole
	have int64 // bytes that it holds now
}

// openReserve finds what there is. It may be less than all, or nothing: [reserve.fill] sees to that.
func openReserve(dir string, size int64) *reserve {
	r := &reserve{path: filepath.Join(dir, reserveName), size: size}
	var st unix.Stat_t
	if unix.Stat(r.path, &st) == nil {
		r.have = min(st.Blocks*512, st.Size, size)
	}
	return r
}

// fill makes the reserve whole. Until then acts are refused, so that they can't use up the room.
func (r *reserve) fill() error {
	if r.have >= r.size {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("keep %d bytes in reserve: %w", r.size, err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, r.size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(make([]byte, r.size-r.have), r.have)
		err = errors.Join(err, f.Sync()) // room is not taken before
	}
	if err != nil {
		// Not to keep part of it: that is room which a record may need.
		return fmt.Errorf("keep %d bytes in reserve: %w", r.size, errors.Join(err, f.Truncate(r.have)))
	}
	r.have = r.size
	return nil
}

// release gives up part of the reserve, and reports whether there was any left.
func (r *reserve) release() bool {
	if r.have == 0 {
		return false
	}
	left := max(0, r.have-reserveStep)
	f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	// Some file systems have the room only once this is durable.
	if err := errors.Join(f.Truncate(left), f.Sync()); err != nil {
		return false
	}
	r.have = left
	return true
}
