// Package seal holds weights in memory that no one can change any more.
//
// The one rule: a [*Weights] exists only after every listed byte was read once, matched the manifest and was sealed by
// the kernel (memfd_create with F_SEAL_WRITE, SHRINK, GROW and SEAL). [Load] is the only way to get one; the zero
// Weights names no weights and everyone who takes one must refuse it ([Weights.Valid]).
//
// Files are handed out as read-only descriptors ([Weights.Dup]) whose seals are looked at again each time. Memory is
// given back when the last descriptor of a file is closed, in whichever process it is.
package seal

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// A Level says what is guaranteed about the bytes that a runtime reads.
type Level string

// Sealed means: hashed while read, once, and kept where nothing can change it.
const Sealed Level = "sealed"

var (
	// ErrClosed means that the weights were let go: load them again.
	ErrClosed = errors.New("sealed weights are closed")
	// ErrNotSealed means that a descriptor lacks a seal. It is never transient, and nothing may be read from it.
	ErrNotSealed = errors.New("memory is not sealed")
)

// Weights are files of a model, all of them as its manifest lists them. It may be used concurrently.
type Weights struct {
	root  string
	names []string // sorted
	size  int64

	mu     sync.Mutex
	files  map[string]*os.File // read-only descriptors; nil once closed
	closed bool
}

// Valid reports whether w names weights at all: false for nil and for the zero value. Closed weights stay valid, but
// give out no more files.
func (w *Weights) Valid() bool { return w != nil && w.root != "" }

// Root returns the root digest of the manifest, "sha256:…".
func (w *Weights) Root() string { return w.root }

// Level returns Sealed: there is no other way to make Weights.
func (w *Weights) Level() Level { return Sealed }

// Size returns how many bytes of memory all files take together.
func (w *Weights) Size() int64 { return w.size }

// Names returns the listed names of all files, sorted. The file of a single-file model may be named ".".
func (w *Weights) Names() []string { return slices.Clone(w.names) }

// Dup returns a new read-only descriptor of one file with its own offset, after looking at its seals again. The caller
// closes it.
func (w *Weights) Dup(name string) (*os.File, error) {
	if !w.Valid() {
		return nil, errors.New("the zero value names no weights")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrClosed
	}
	f, ok := w.files[name]
	if !ok {
		return nil, fmt.Errorf("no file %q in weights %s", name, w.root)
	}
	return reopen(f, name)
}

// Close lets the weights go: Dup is refused from now on, and the memory is given back once the descriptors that were
// handed out are closed too. Only the first call does anything.
func (w *Weights) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.Close())
	}
	w.files = nil
	return errors.Join(errs...)
}
