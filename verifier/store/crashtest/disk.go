// Package crashtest is a disk that fails and loses power, for tests of whatever has to outlive that.
//
// The one rule: what was not synced is lost. Beside what processes see the disk keeps what is durable: a file's contents
// as of its last fsync, and a directory's names as of its own. That a name was created, renamed or unlinked is durable
// only once its directory is synced.
//
//	disk, after := crashtest.Mount(t), crashtest.Mount(t)
//	for n := 1; ; n++ {
//		disk.Load(crashtest.Empty())
//		disk.Arm(crashtest.Fault{At: n, Errno: unix.EIO})
//		… do something in disk.Path()
//		if !disk.Struck() {
//			break
//		}
//		after.Load(disk.Image(crashtest.PowerLost))
//		… look what is left in after.Path()
//	}
//
// A process that the test starts sees the same files, and can be killed in the middle of an operation. It must not be
// started in a directory of the disk: the runtime waits for it to get there, and nobody would answer meanwhile.
package crashtest

import (
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/weighbridge/weighbridge/verifier/fusetest"
)

// maxRequest is the most that the kernel reads or writes at once. Each request takes a buffer of that size.
const maxRequest = 64 << 10 // bytes

// A Fault is what happens to one operation. The zero Fault never happens.
type Fault struct {
	// At says which operation it is, counted from 1 on: each that changes something or makes it durable, or that opens a
	// file to do so.
	At int
	// Looks has operations counted, and fail, that change nothing: finding, opening and reading. The kernel does without
	// where it knows the answer, and may look again where one failed.
	Looks bool
	// Errno is what the operation fails with.
	Errno syscall.Errno
	// Rest has all that are counted fail from then on.
	Rest bool
	// Late has the operation take effect, where it can, before it fails.
	Late bool
	// Then is called before whoever asked hears of the failure, to kill it. It must not use the disk.
	Then func()
}

// A Disk is a file system in memory. Its methods may be called concurrently, also while it is used.
type Disk struct {
	mounted string

	mu    sync.Mutex
	path  string
	root  *inode   // what is at path
	nodes []*inode // by the kernel's number for them; those that are gone stay, for who has them open
	fault Fault
	count int // operations since Arm
}

// Mount mounts an empty disk for as long as the test runs, or skips the test where [fusetest.Serve] does.
func Mount(t testing.TB) *Disk {
	t.Helper()
	mounted := newDir(0o755)
	mounted.names[fusetest.Polled] = newFile(0o600)
	d := &Disk{nodes: []*inode{fuse.FUSE_ROOT_ID: mounted}}
	d.mounted = fusetest.Serve(t, server{fuse.NewDefaultRawFileSystem(), d}, maxRequest, 0)
	d.Load(Empty())
	return d
}

// Path returns where the disk is, until the next Load.
func (d *Disk) Path() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.path
}

// Load makes the disk hold what an image holds, at another path, and no fault. Whoever has a file open keeps that one.
func (d *Disk) Load(i Image) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strconv.Itoa(len(d.nodes)) // never the same: the kernel remembers what it found under another
	d.nodes = append(d.nodes, nil)
	d.root = i.as(Killed).root
	d.nodes[fuse.FUSE_ROOT_ID].names = map[string]*inode{name: d.root}
	d.path = filepath.Join(d.mounted, name)
	d.fault = Fault{}
}

// Image returns what is left of the disk after a crash.
func (d *Disk) Image(after Crash) Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Image{d.root}.as(after)
}

// Arm replaces the fault, and counts from now on.
func (d *Disk) Arm(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.count = f, 0
}

// Heal makes nothing fail any more. [Disk.Struck] still says what did.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault.Rest = false
}

// Struck reports whether the fault has happened.
func (d *Disk) Struck() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault.At > 0 && d.count >= d.fault.At
}

// look performs an operation that changes nothing, unless the fault happens.
func (d *Disk) look(effect func() fuse.Status) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.fault.Looks {
		return effect()
	}
	return d.counted(effect)
}

// change performs an operation that changes something or makes it durable, unless the fault happens.
func (d *Disk) change(effect func() fuse.Status) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counted(effect)
}

func (d *Disk) counted(effect func() fuse.Status) fuse.Status {
	d.count++
	f := d.fault
	switch {
	case f.At == 0 || d.count < f.At || d.count > f.At && !f.Rest:
		return effect()
	case d.count > f.At:
		return fuse.Status(f.Errno)
	}
	if f.Late {
		effect()
	}
	if f.Then != nil {
		f.Then()
	}
	return fuse.Status(f.Errno)
}
