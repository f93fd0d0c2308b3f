// Package fusetest serves files that misbehave, for tests of whatever reads weights.
//
// The one rule: what a test opens is a regular file of the kernel, read by the system calls that read any other; what it
// does is what the test scripted, and every byte that is read of it is counted.
//
//	dir := fusetest.Mount(t)
//	f := fusetest.New(4<<30, fusetest.Offsets)
//	f.After(1<<30, func() { f.Resize(2 << 30) })
//	dir.Put("weights.gguf", f)
//	load(dir.Path("weights.gguf"))
//	if f.MaxReads() > 1 { … }
//
// A test serves the files that it reads, from the same process: nothing in it may map them into memory. A page fault
// stops a thread where the runtime can't see it, and then waits for goroutines that wait for that thread.
package fusetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxRead is the most that the kernel asks for at once: what it allows to those who don't tune it.
const maxRead = 1 << 20 // bytes

// A Dir is a directory of such files.
type Dir struct {
	t    testing.TB
	path string
	root *fusefs.Inode
}

// Mount mounts an empty directory for as long as the test runs, as [Serve] does.
func Mount(t testing.TB) *Dir {
	t.Helper()
	d := &Dir{t: t, root: new(fusefs.Inode)}
	files := fusefs.NewNodeFS(d.root, &fusefs.Options{})
	d.Put(Polled, Bytes(nil))
	d.path = Serve(t, files, maxRead, unix.MS_RDONLY)
	d.root.RmChild(Polled)
	return d
}

// Polled is the name of a file that [Serve] opens, and that may go when it returns.
const Polled = "polled"

// Serve mounts files, among them [Polled], at a directory for as long as the test runs, and returns the directory. The
// kernel reads and writes at most maxRequest bytes at once; flags are such as [unix.MS_RDONLY]. It skips the test where
// that is not possible: it takes /dev/fuse, and the right to mount. When the test ends the directory goes, even if files
// of it are still open or somebody waits to read of them.
func Serve(t testing.TB, files fuse.RawFileSystem, maxRequest int, flags uintptr) string {
	t.Helper()
	path := t.TempDir()
	fd, err := mount(path, maxRequest, flags)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		t.Skipf("no files that misbehave: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	server, err := fuse.NewServer(files, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite:           maxRequest,
		DisableXAttrs:      true,
		DisableReadDirPlus: true,
		Logger:             log.New(io.Discard, "", 0), // of answers that nobody waits for any more
		PanicHandler: func(p any) fuse.Status { // of what the test scripted
			t.Errorf("panic in a file's script: %v\n%s", p, debug.Stack())
			return fuse.EIO
		},
	})
	if err != nil {
		t.Fatal(errors.Join(fmt.Errorf("serve files: %w", err), unix.Unmount(path, unix.MNT_DETACH)))
	}
	served := make(chan struct{}) // closed when nothing is served any more
	go func() {
		defer close(served)
		server.Serve()
	}()
	t.Cleanup(func() { unmount(t, path, served) })
	if err := forbidPolling(filepath.Join(path, Polled)); err != nil {
		t.Fatal(err)
	}
	return path
}

// mount mounts what is served through the returned descriptor. The library's own way leaves that descriptor open in
// every process that the test starts.
func mount(path string, maxRequest int, flags uintptr) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxRequest)
	if err := unix.Mount("fusetest", path, "fuse.fusetest", unix.MS_NOSUID|unix.MS_NODEV|flags, options); err != nil {
		unix.Close(fd)
		return -1, &fs.PathError{Op: "mount fuse at", Path: path, Err: err}
	}
	return fd, nil
}

// forbidPolling makes the kernel ask once whether files can be polled, and never again. The runtime asks that of each
// file it opens, in a system call that keeps a processor from those who would have to answer.
func forbidPolling(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return os.NewSyscallError("poll", err)
}

// unmount takes the directory away and waits until nothing is served.
func unmount(t testing.TB, path string, served <-chan struct{}) {
	err := unix.Unmount(path, 0)
	if errors.Is(err, unix.EBUSY) {
		// Who still waits for a file of it now gets an error, and who has one open can do nothing more with it.
		t.Logf("files of %s are still open", path)
		err = unix.Unmount(path, unix.MNT_FORCE|unix.MNT_DETACH)
	}
	if err != nil {
		t.Errorf("unmount %s: %v", path, err)
		return
	}
	<-served
}

// Put makes f the file of that name. Whoever has another file of that name open keeps that one.
func (d *Dir) Put(name string, f *File) {
	d.t.Helper()
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		d.t.Fatalf("%q does not name a file in a directory", name)
	}
	d.root.AddChild(name, d.root.NewPersistentInode(context.Background(), &node{f: f}, fusefs.StableAttr{Mode: unix.S_IFREG}), true)
}

// Path returns where the file of that name is.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// A node is a file under one name.
type node struct {
	fusefs.Inode
	f *File
}

// Getattr implements [fusefs.NodeGetattrer].
func (n *node) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	size, modified := n.f.stat()
	out.Mode, out.Nlink, out.Blksize = 0o444, 1, 4096
	out.Size, out.Blocks = uint64(size), uint64(size+511)/512
	out.Uid, out.Gid = uint32(os.Geteuid()), uint32(os.Getegid())
	out.SetTimes(nil, &modified, &modified)
	return 0
}

// Open implements [fusefs.NodeOpener].
func (n *node) Open(_ context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	direct := flags&unix.O_DIRECT != 0
	cached, errno := n.f.open(direct)
	if errno != 0 {
		return nil, 0, errno
	}
	if cached {
		return &handle{n.f, direct}, fuse.FOPEN_KEEP_CACHE, 0
	}
	return &handle{n.f, direct}, fuse.FOPEN_DIRECT_IO, 0
}

// A handle is a file as it was opened once.
type handle struct {
	f      *File
	direct bool
}

// Read implements [fusefs.FileReader].
func (h *handle) Read(ctx context.Context, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, errno := h.f.read(ctx, h.direct, p, off)
	if errno != 0 {
		return nil, errno
	}
	return fuse.ReadResultData(p[:n]), 0
}
