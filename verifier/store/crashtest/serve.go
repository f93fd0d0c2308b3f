package crashtest

import (
	"maps"
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// remember returns for how long the kernel may remember names and attributes. Nothing changes but through it, unless it
// is told that something failed that took effect.
func (d *Disk) remember() time.Duration {
	if d.fault.Late {
		return 0
	}
	return time.Hour
}

// A server answers the kernel. What it does not serve, such as links, fails for whoever begins to use it.
type server struct {
	fuse.RawFileSystem // answers that it doesn't know what is not a method here

	disk *Disk
}

// node returns the file or directory that the kernel means.
func (d *Disk) node(id uint64) *inode { return d.nodes[id] }

// child returns what has a name in a directory, nil if nothing does.
func (d *Disk) child(dir uint64, name string) *inode { return d.node(dir).names[name] }

// entry tells the kernel of n.
func (d *Disk) entry(n *inode, out *fuse.EntryOut) {
	if n.id == 0 {
		n.id = uint64(len(d.nodes))
		d.nodes = append(d.nodes, n)
	}
	out.NodeId = n.id
	out.SetEntryTimeout(d.remember())
	out.SetAttrTimeout(d.remember())
	n.attributes(&out.Attr)
}

func (n *inode) attributes(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Blksize = n.id, n.mode, 1, 4096
	out.Size, out.Blocks = uint64(len(n.data)), uint64(len(n.data)+511)/512
}

// Lookup implements [fuse.RawFileSystem].
func (s server) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return s.disk.look(func() fuse.Status {
		n := s.disk.child(in.NodeId, name)
		if n == nil {
			return fuse.ENOENT
		}
		s.disk.entry(n, out)
		return fuse.OK
	})
}

// GetAttr implements [fuse.RawFileSystem].
func (s server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return s.disk.look(func() fuse.Status {
		s.disk.node(in.NodeId).attributes(&out.Attr)
		out.SetTimeout(s.disk.remember())
		return fuse.OK
	})
}

// SetAttr implements [fuse.RawFileSystem]. It sets the size and the mode.
func (s server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return s.disk.change(func() fuse.Status {
		n := s.disk.node(in.NodeId)
		if size, ok := in.GetSize(); ok {
			n.resize(int64(size))
		}
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&unix.S_IFMT | mode
		}
		n.attributes(&out.Attr)
		out.SetTimeout(s.disk.remember())
		return fuse.OK
	})
}

// Mkdir implements [fuse.RawFileSystem].
func (s server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return s.disk.change(func() fuse.Status { return s.disk.add(in.NodeId, name, newDir(in.Mode), out) })
}

// Create implements [fuse.RawFileSystem].
func (s server) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return s.disk.change(func() fuse.Status {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
		return s.disk.add(in.NodeId, name, newFile(in.Mode), &out.EntryOut)
	})
}

func (d *Disk) add(dir uint64, name string, n *inode, out *fuse.EntryOut) fuse.Status {
	if d.child(dir, name) != nil {
		return fuse.Status(unix.EEXIST)
	}
	d.node(dir).names[name] = n
	d.entry(n, out)
	return fuse.OK
}

// Open implements [fuse.RawFileSystem].
func (s server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	operation := s.disk.look
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		operation = s.disk.change
	}
	return operation(func() fuse.Status {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
		return fuse.OK
	})
}

// Read implements [fuse.RawFileSystem].
func (s server) Read(_ <-chan struct{}, in *fuse.ReadIn, p []byte) (fuse.ReadResult, fuse.Status) {
	n := 0
	status := s.disk.look(func() fuse.Status {
		if data := s.disk.node(in.NodeId).data; in.Offset < uint64(len(data)) {
			n = copy(p, data[in.Offset:])
		}
		return fuse.OK
	})
	return fuse.ReadResultData(p[:n]), status
}

// Write implements [fuse.RawFileSystem].
func (s server) Write(_ <-chan struct{}, in *fuse.WriteIn, p []byte) (uint32, fuse.Status) {
	status := s.disk.change(func() fuse.Status {
		s.disk.node(in.NodeId).write(p, int64(in.Offset))
		return fuse.OK
	})
	return uint32(len(p)), status
}

// Fsync implements [fuse.RawFileSystem].
func (s server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.disk.change(func() fuse.Status {
		s.disk.node(in.NodeId).sync()
		return fuse.OK
	})
}

// FsyncDir implements [fuse.RawFileSystem].
func (s server) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.Fsync(cancel, in)
}

// Unlink implements [fuse.RawFileSystem].
func (s server) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.disk.change(func() fuse.Status {
		if s.disk.child(in.NodeId, name) == nil {
			return fuse.ENOENT
		}
		delete(s.disk.node(in.NodeId).names, name)
		return fuse.OK
	})
}

// Rmdir implements [fuse.RawFileSystem].
func (s server) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.disk.change(func() fuse.Status {
		n := s.disk.child(in.NodeId, name)
		switch {
		case n == nil:
			return fuse.ENOENT
		case len(n.names) > 0:
			return fuse.Status(unix.ENOTEMPTY)
		}
		delete(s.disk.node(in.NodeId).names, name)
		return fuse.OK
	})
}

// StatFs implements [fuse.RawFileSystem]. There is room for more than a test writes.
func (s server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Blocks, out.Bfree, out.Bavail, out.NameLen = 4096, 1<<20, 1<<20, 1<<20, 255
	return fuse.OK
}

// Rename implements [fuse.RawFileSystem].
func (s server) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return s.disk.change(func() fuse.Status {
		n, target := s.disk.child(in.NodeId, from), s.disk.child(in.Newdir, to)
		switch {
		case in.Flags != 0:
			return fuse.EINVAL
		case n == nil:
			return fuse.ENOENT
		case target != nil && (target.dir() || n.dir()):
			return fuse.Status(unix.EEXIST)
		}
		delete(s.disk.node(in.NodeId).names, from)
		s.disk.node(in.Newdir).names[to] = n
		return fuse.OK
	})
}

// OpenDir implements [fuse.RawFileSystem].
func (s server) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return s.disk.look(func() fuse.Status { return fuse.OK })
}

// ReadDir implements [fuse.RawFileSystem].
func (s server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.disk.look(func() fuse.Status {
		names := s.disk.node(in.NodeId).names
		sorted := slices.Sorted(maps.Keys(names))
		for _, name := range sorted[min(in.Offset, uint64(len(sorted))):] {
			if !out.AddDirEntry(fuse.DirEntry{Name: name, Mode: names[name].mode}) {
				break
			}
		}
		return fuse.OK
	})
}
