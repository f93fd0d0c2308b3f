// Package seal holds weights in memory that no one can change any more.
//
// The one rule: a [*Weights] exists only after every listed byte was read once and matched the manifest, and says by
// its [Level] what that is worth from then on. At level [Sealed] the bytes then lie in memory that the kernel has sealed
// (memfd_create with F_SEAL_WRITE, SHRINK, GROW and SEAL). [Pool.Load] is the only way to get Weights; the zero Weights
// names none and everyone who takes one must refuse it ([Weights.Valid]).
//
// Files are handed out as read-only descriptors ([Weights.Dup]) that are looked at again each time. Memory that nobody
// uses stays warm, as far as the [Pool] has room, and is given back when the last descriptor of a file is closed, in
// whichever process it is.
package seal

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A Level says what is guaranteed about the bytes that a runtime reads.
type Level string

const (
	// Sealed means: hashed while read, once, and kept where nothing can change it.
	Sealed Level = "sealed"
	// Measured means: hashed on disk, and handed over by the descriptor that was hashed. It proves the bytes at load
	// only. A file that was changed since is refused when the kernel shows it (size, times), at each start of a runtime.
	Measured Level = "measured"
	// Attached means: verified here, and then handed to a runtime that others started, whose own word it is that it still
	// has them. Weights never have this level; a runtime gives it to what it serves.
	Attached Level = "attached"
)

var (
	// ErrClosed means that the weights were let go: load them again.
	ErrClosed = errors.New("sealed weights are closed")
	// ErrNotSealed means that a descriptor lacks a seal. It is never transient, and nothing may be read from it.
	ErrNotSealed = errors.New("memory is not sealed")
	// ErrChanged means that a measured file is not the one that was measured any more: load it again.
	ErrChanged = errors.New("file was changed since it was measured")
)

// Weights are one holder's reference to the files of a model, all of them as its manifest lists them. They may be used
// concurrently.
type Weights struct {
	held *held

	mu     sync.Mutex
	closed bool
}

// held is the files of a model, shared by all who hold them.
type held struct {
	pool  *Pool
	key   key
	root  string
	level Level
	names []string // sorted
	size  int64
	files map[string]file

	// Guarded by the pool's lock.
	users     int
	lastUsed  int64 // by the pool's count
	discarded bool  // by a holder: it does not stay warm
}

// A file is open for reading.
type file struct {
	*os.File
	stat   unix.Stat_t // at level Measured, when it was opened
	pinned *pin        // keeps it from swap
}

// Valid reports whether w names weights at all: false for nil and for the zero value. Closed weights stay valid, but
// give out no more files.
func (w *Weights) Valid() bool { return w != nil && w.held != nil }

// Root returns the root digest of the manifest, "sha256:…".
func (w *Weights) Root() string { return w.held.root }

// Level returns what is guaranteed.
func (w *Weights) Level() Level { return w.held.level }

// Size returns how many bytes all files have together. At level Sealed they are in memory.
func (w *Weights) Size() int64 { return w.held.size }

// Names returns the listed names of all files, sorted. The file of a single-file model may be named ".".
func (w *Weights) Names() []string { return slices.Clone(w.held.names) }

// Share returns another reference to the same files, to be closed by itself.
func (w *Weights) Share() (*Weights, error) {
	if !w.Valid() {
		return nil, errZero
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrClosed
	}
	return w.held.pool.share(w.held), nil
}

var errZero = errors.New("the zero value names no weights")

// Dup returns a new read-only descriptor of one file with its own offset, after looking at the file again: at its seals,
// or whether it was changed since it was measured. The caller closes it.
func (w *Weights) Dup(name string) (*os.File, error) {
	if !w.Valid() {
		return nil, errZero
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrClosed
	}
	f, ok := w.held.files[name]
	if !ok {
		return nil, fmt.Errorf("no file %q in weights %s", name, w.held.root)
	}
	if w.held.level == Measured {
		if err := unchanged(f.File, f.stat); err != nil {
			return nil, fmt.Errorf("file %q: %w", name, err)
		}
		return reopen(f.File, name)
	}
	return reopenSealed(f.File, name)
}

// unchanged returns nil if nothing shows that a file was written since it looked like before.
func unchanged(f *os.File, before unix.Stat_t) error {
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if now.Size != before.Size || now.Mtim != before.Mtim || now.Ctim != before.Ctim {
		return ErrChanged
	}
	return nil
}

// Close lets this reference go: Dup is refused from now on. When it was the last one the memory stays warm in the pool,
// or is given back once the descriptors that were handed out are closed too. Only the first call does anything.
func (w *Weights) Close() error { return w.close(false) }

// Discard is Close, but the memory does not stay warm: it is given back when nobody else holds it.
func (w *Weights) Discard() error { return w.close(true) }

func (w *Weights) close(discard bool) error {
	if !w.Valid() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.held.pool.release(w.held, discard)
}
