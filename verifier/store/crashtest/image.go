package crashtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// An Image is what a disk held at one moment: what was seen, and what was durable. It is never changed.
type Image struct{ root *inode }

// Empty returns the image of an empty disk.
func Empty() Image { return Image{newDir(0o755)} }

// Sum tells two images apart, except by the names of temporary files: of those that begin with a dot, what comes after
// their last one does not count.
func (i Image) Sum() [sha256.Size]byte {
	h := sha256.New()
	var add func(*inode)
	add = func(n *inode) {
		fmt.Fprintf(h, "%o %d %d:%s%s", n.mode, len(n.data), len(n.durable), n.data, n.durable)
		for _, names := range []map[string]*inode{n.names, n.durableNames} {
			fmt.Fprintf(h, "%d ", len(names))
			for _, name := range slices.Sorted(maps.Keys(names)) {
				told := name
				if strings.HasPrefix(name, ".") {
					told = name[:strings.LastIndex(name, ".")]
				}
				fmt.Fprintf(h, "%q ", told)
				add(names[name])
			}
		}
	}
	add(i.root)
	return [sha256.Size]byte(h.Sum(nil))
}

// A Crash is what an end does to a disk. A disk may write anything early, so that power that is lost has several outcomes.
type Crash int

// Crashes.
const (
	Killed       Crash = iota // only processes end: what they saw is there, and what was not durable still isn't
	PowerLost                 // what is durable is left
	NamesEarly                // power is lost, when names had become durable already, and contents had not
	ContentsTorn              // power is lost, when so had names, and half of what was written to each file
)

// Crashes are all of them.
var Crashes = []Crash{Killed, PowerLost, NamesEarly, ContentsTorn}

// String names the crash.
func (c Crash) String() string {
	return []string{"killed", "power lost", "power lost, names written early", "power lost, contents torn"}[c]
}

// An inode is a file or a directory.
type inode struct {
	mode uint32
	id   uint64 // the kernel's number for it, 0 before it asks

	// Of a file. The slices are never written to: each write makes another.
	data, durable []byte

	// Of a directory.
	names, durableNames map[string]*inode
}

func newDir(perm uint32) *inode {
	return &inode{mode: unix.S_IFDIR | perm&0o7777, names: map[string]*inode{}, durableNames: map[string]*inode{}}
}

func newFile(perm uint32) *inode { return &inode{mode: unix.S_IFREG | perm&0o7777} }

func (n *inode) dir() bool { return n.names != nil }

// sync makes durable what is seen.
func (n *inode) sync() { n.durable, n.durableNames = n.data, maps.Clone(n.names) }

// write replaces contents from off on.
func (n *inode) write(p []byte, off int64) {
	data := make([]byte, max(len(n.data), int(off)+len(p)))
	copy(data, n.data)
	copy(data[off:], p)
	n.data = data
}

// resize cuts contents off, or adds zeros.
func (n *inode) resize(size int64) {
	data := make([]byte, size)
	copy(data, n.data)
	n.data = data
}

// as returns a copy of what a crash leaves.
func (i Image) as(c Crash) Image {
	copies := map[*inode]*inode{} // a file that was renamed has two names: the one that is seen, and the durable one
	var of func(*inode) *inode
	all := func(names map[string]*inode) map[string]*inode {
		if names == nil {
			return nil
		}
		m := make(map[string]*inode, len(names))
		for name, n := range names {
			m[name] = of(n)
		}
		return m
	}
	of = func(n *inode) *inode {
		if m, ok := copies[n]; ok {
			return m
		}
		m := &inode{mode: n.mode}
		copies[n] = m
		switch c {
		case Killed:
			m.data, m.durable = n.data, n.durable
			m.names, m.durableNames = all(n.names), all(n.durableNames)
			return m
		case PowerLost:
			m.data, m.names = n.durable, all(n.durableNames)
		case NamesEarly:
			m.data, m.names = n.durable, all(n.names)
		case ContentsTorn:
			m.data, m.names = n.torn(), all(n.names)
		}
		m.sync()
		return m
	}
	return Image{of(i.root)}
}

// torn is what half of a write leaves.
func (n *inode) torn() []byte {
	if bytes.Equal(n.data, n.durable) {
		return n.data
	}
	return n.data[:len(n.data)/2]
}
